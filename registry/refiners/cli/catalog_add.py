"""`refiners catalog add`: shows what wheels change in a catalog, and adds them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from refiners.cli.output import say
from refiners.cli.report import json_option, print_json
from refiners.errors import OptionError
from refiners.host.shell import quoted

if TYPE_CHECKING:
    from refiners.catalog import Release

_COLOURS = {"+": "green", "-": "red"}


@click.command("add")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--catalog", "folder", type=click.Path(path_type=Path, file_okay=False),
              required=True, envvar="REFINERS_CATALOG", help="The folder of the catalog.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Add without asking.")
@click.option("--provenance", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="The provenance file of the one wheel; by default the package index is asked.",
)  # fmt: skip
@click.option("--accept-publisher", is_flag=True,
              help="Accept another publisher than the one that the catalog records.")  # fmt: skip
@click.option("--offline", is_flag=True,
              help="Do not ask the package index who published the wheels.")  # fmt: skip
@json_option
def add_releases(
    paths: tuple[Path, ...],
    folder: Path,
    yes: bool,
    provenance: Path | None,
    accept_publisher: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Review and add wheels to a catalog.

    PATHS are wheels, or folders with wheels or with dist/. Shows how each release differs from the
    newest one in the catalog, then asks. Takes over the conformance report in a wheel, and the
    publisher that the package index attests. Refuses a name that another package published first,
    and another publisher than the recorded one. With --json, writes only if --yes is given.

    \b
    Examples:
      refiners catalog add dist --catalog catalog
      refiners catalog add dist/refiners_mine-1.0-py3-none-any.whl --catalog catalog --yes
    """
    from refiners.catalog.build import add
    from refiners.catalog.proposal import propose

    wheels = _wheels(paths)
    if provenance is not None and len(wheels) > 1:
        raise OptionError(
            f"--provenance is of one wheel, and there are {len(wheels)}.",
            hint="Add them one at a time.",
        )
    releases = [release for wheel in wheels for release in _releases(wheel, provenance, offline)]
    proposals = propose(folder, releases, accept_publisher=accept_publisher)
    is_new = any(proposal.lines for proposal in proposals)
    if not as_json:
        for proposal in proposals:
            say(proposal.title)
            for line in proposal.lines:
                say(f"  {line}", color=_COLOURS[line[0]])
        if not is_new:
            click.echo(f"{folder} has all of this already.")
    is_wanted = is_new and (yes or (not as_json and _is_confirmed(folder)))
    added = add(folder, (proposal.release for proposal in proposals)) if is_wanted else ()
    names = [f"{release.distribution}:{release.name}" for release in added]
    if as_json:
        changes = [
            {"release": str(p.release), "compared_with": p.before and p.before.version,
             "differences": list(p.lines)}
            for p in proposals
        ]  # fmt: skip
        print_json({"catalog": str(folder), "changes": changes, "added": names})
    elif is_new:
        click.echo(f"{len(added)} added to {folder}." if is_wanted else "Nothing was written.")


def _is_confirmed(folder: Path) -> bool:
    try:
        return click.confirm(f"Add this to {folder}?")
    except click.Abort as error:
        raise OptionError("nothing was written: nobody answered.", hint="Add --yes.") from error


def _wheels(paths: tuple[Path, ...]) -> list[Path]:
    wheels: dict[Path, None] = {}
    for path in paths:
        if path.is_file():
            wheels[path] = None
            continue
        inside = sorted(path.glob("*.whl")) or sorted(path.glob("dist/*.whl"))
        if not inside:
            build = quoted("pip", "wheel", "--no-deps", "--wheel-dir", path / "dist", path)
            raise OptionError(f"{path} has no wheel, nor has {path / 'dist'}.", hint=f"Run {build}")
        wheels |= dict.fromkeys(inside)
    return [*wheels]


def _releases(wheel: Path, provenance: Path | None, offline: bool) -> list[Release]:
    """Returns the releases in a wheel, with the publisher that the index attests."""
    from msgspec.structs import replace

    from refiners.catalog.attestation import attested_publisher
    from refiners.catalog.build import read_wheel
    from refiners.hub.provenance import read_provenance

    releases = read_wheel(wheel)
    if not releases:
        raise OptionError(
            f"{wheel} has no adapter, model or preprocessor.",
            hint="Name the wheel of a plugin.",
        )
    first = releases[0]
    content: bytes | None = None
    if provenance is not None:
        content = provenance.read_bytes()
    elif not offline:
        content = read_provenance(first.distribution, first.version, wheel.name)
    if content is None:
        return [*releases]
    publisher = attested_publisher(wheel, content, offline=offline)
    return [replace(release, publisher=publisher) for release in releases]
