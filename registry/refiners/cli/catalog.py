"""`refiners search` and `refiners catalog`: the list of published packages, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from refiners.catalog import Listed
from refiners.cli.catalog_add import add_releases
from refiners.cli.catalog_page import page
from refiners.cli.hub_search import search_hub
from refiners.cli.report import json_option, print_json, print_table
from refiners.installed.inventory import Installed
from refiners.manifest.address import PREFIX
from refiners.manifest.schema import AdapterSpec, ModelSpec, Spec, kind_of


@click.command()
@click.argument("terms", nargs=-1, required=True)
@click.option("--base", metavar="NAME", help="Only adapters for this base model, such as sd15.")
@json_option
def search(terms: tuple[str, ...], base: str | None, as_json: bool) -> None:
    """Search installed and published adapters.

    Also searches models and preprocessors. Looks for TERMS in names, summaries, bases and kinds,
    offline; every term must match. With hf: before the first term, searches the Hub instead, and
    with --base those repositories whose card names that base model. Exits with 1 if nothing
    matches.

    \b
    Examples:
      refiners search edges
      refiners search sd15 picture --json
      refiners search hf:watercolor --base sd15
    """
    if terms[0].startswith(PREFIX):
        search_hub(" ".join(terms).removeprefix(PREFIX).strip(), base, as_json)
        return
    from refiners.catalog import listed
    from refiners.catalog import search as search_entries
    from refiners.catalog.owner import unclaimed
    from refiners.installed.inventory import scan

    installed = {(entry.kind, entry.id): entry for entry in map(_listed, scan().plugins)}
    owners = {
        name: entry.distribution
        for entry in installed.values()
        for name in (entry.name, *entry.aliases)
    }
    published = (
        entry for entry in unclaimed(listed(), owners) if (entry.kind, entry.id) not in installed
    )
    matches = search_entries(terms, (*installed.values(), *published))
    if base is not None:
        matches = tuple(match for match in matches if {base, "any"} & {*match.bases})
    if as_json:
        print_json(
            {
                "found": [
                    {
                        "id": match.id,
                        "name": match.name,
                        "kind": match.kind,
                        "version": match.version,
                        "summary": match.summary,
                        "bases": list(match.bases),
                        "installed": (match.kind, match.id) in installed,
                    }
                    for match in matches
                ]
            }
        )
    elif matches:
        rows = [
            (
                match.name,
                ", ".join(match.bases),
                match.summary,
                f"{match.distribution} {match.version}"
                if (match.kind, match.id) in installed
                else f"pip install {match.distribution}",
            )
            for match in matches
        ]
        print_table("Matches", ("name", "bases", "summary", "package"), rows)
    else:
        click.echo(f"Nothing matches {' and '.join(terms)}. Try fewer words, or refiners list.")
    if not matches:
        click.get_current_context().exit(1)


def _listed(plugin: Installed[Any]) -> Listed:
    """Returns an installed plugin as an entry of the catalog."""
    spec: Spec = plugin.spec
    bases = (spec.family,) if isinstance(spec, ModelSpec) else ("any",)
    return Listed(
        name=plugin.name,
        kind=kind_of(spec),
        distribution=plugin.dist,
        summary=spec.summary,
        version=plugin.version,
        bases=spec.bases if isinstance(spec, AdapterSpec) else bases,
        aliases=spec.aliases,
        does=spec.kind if isinstance(spec, AdapterSpec) else "",
    )


@click.group()
def catalog() -> None:
    """Build, show, refresh or forget the catalog, or add to one.

    The catalog is the list of published adapters, models and preprocessors.

    \b
    Examples:
      refiners catalog build dist/*.whl --out catalog
      refiners catalog add dist --catalog catalog
      refiners catalog page site
      refiners catalog refresh hf:organisation/name
      refiners catalog forget
    """


catalog.add_command(page)
catalog.add_command(add_releases)


@catalog.command()
@click.argument("source", required=False, envvar="REFINERS_CATALOG_SOURCE")
@json_option
def refresh(source: str | None, as_json: bool) -> None:
    """Fetch a newer catalog from the Hub.

    SOURCE is a repository of the Hub; by default, the one that was used last. The catalog informs
    search, info and hints about published packages and advisories, but never changes which files
    are loaded: installed packages name these and their hashes. A catalog that lost or changed known
    entries is refused.

    \b
    Examples:
      refiners catalog refresh hf:organisation/name
      refiners catalog refresh
    """
    from refiners.choose.policy import Guard
    from refiners.hub.client import Hub
    from refiners.refresh import refresh as fetch_catalog

    update = fetch_catalog(source, Hub.from_environment(), Guard.from_environment())
    if as_json:
        print_json(
            {
                "source": update.source,
                "commit": update.commit,
                "added": [str(release) for release in update.added],
                "advisories": [advisory.id for advisory in update.advisories],
            }
        )
        return
    rows = [(f"{entry.distribution}:{entry.name}", entry.kind, entry.version)
            for entry in update.added]  # fmt: skip
    rows += [(advisory.id, "advisory", advisory.reason) for advisory in update.advisories]
    title = f"{len(rows)} new in {update.source} at {update.commit}"
    print_table(title, ("name", "kind", "version or reason"), rows)


@catalog.command()
@json_option
def forget(as_json: bool) -> None:
    """Remove the fetched catalog.

    Afterwards, the catalog that is installed with refiners is used.

    \b
    Examples:
      refiners catalog forget
    """
    from refiners.catalog.copy import forget as remove

    is_removed = remove()
    if as_json:
        print_json({"forgotten": is_removed})
    else:
        click.echo("Removed." if is_removed else "No catalog was fetched.")


@catalog.command()
@click.argument("wheels", nargs=-1, required=True,
                type=click.Path(path_type=Path, exists=True, dir_okay=False))  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True,
              help="The folder of the catalog.")  # fmt: skip
@json_option
def build(wheels: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Add the contents of WHEELS to a catalog.

    Reads the wheels without installing them. Existing entries stay. A known version with another
    content is refused, unless it is a development version.

    \b
    Examples:
      refiners catalog build dist/refiners_controlnet-1.0.0-py3-none-any.whl --out catalog
      REFINERS_CATALOG=catalog refiners search controlnet
    """
    from refiners.catalog.build import add, read_wheel

    releases = [release for wheel in wheels for release in read_wheel(wheel)]
    added = add(out, releases)
    names = [f"{release.distribution}:{release.name}" for release in added]
    if as_json:
        print_json({"catalog": str(out), "added": names})
    else:
        rows = [(name, release.kind, release.version)
                for name, release in zip(names, added, strict=True)]  # fmt: skip
        print_table(f"{len(added)} added to {out}", ("name", "kind", "version"), rows)
