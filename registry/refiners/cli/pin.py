"""`refiners pin`: fills the pins of a manifest, and the model card that goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refiners.cli.report import json_option, print_json, print_table
from refiners.errors import CacheError

if TYPE_CHECKING:
    from refiners.authoring.card import Card
    from refiners.authoring.pin import PinChange, PinnedManifest


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--variant", default="", metavar="NAME", help="Only the files of this variant.")
@click.option("--revision", default="", metavar="NAME",
              help="The branch, tag or commit to pin. By default the main branch; a pin stays "
              "while its commit has the same bytes.")  # fmt: skip
@click.option("--card", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Also write the fields of this model card, such as README.md.")  # fmt: skip
@click.option("--check", is_flag=True,
              help="Write nothing; exit with 1 if a pin is missing or stale.")  # fmt: skip
@click.option("--offline", is_flag=True, help="Do not go online.")
@json_option
def pin(
    path: Path,
    variant: str,
    revision: str,
    card: Path | None,
    check: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Pin the files of a manifest to what the Hub has.

    PATH is a manifest, or the folder of a plugin. Asks the Hub for the commit, the sha256 and the
    size of each file, and for the shapes of the tensors that the manifest lists. Everything else in
    the file stays as it is. Pickles are refused.

    \b
    Examples:
      refiners pin src/refiners_mine/adapter.toml
      refiners pin . --card weights/README.md
      refiners pin . --check
    """
    from refiners.authoring.card import updated_card
    from refiners.authoring.pin import pinned_manifests
    from refiners.hub.client import Hub

    hub = Hub.from_environment(offline or None)
    pinned = pinned_manifests(path, hub, variant=variant, revision=revision)
    manifests = tuple((file.path, file.manifest) for file in pinned)
    page = updated_card(card, manifests, variant=variant) if card is not None else None
    changes = [(file.path, change) for file in pinned for change in file.changes]
    fields = page.changes if page is not None else ()
    if not check:
        _write(pinned, page, as_json=as_json)
    if as_json:
        rows: list[dict[str, Any]] = [{"path": str(p)} | c._asdict() for p, c in changes]
        print_json({"pins": rows, "card": [field._asdict() for field in fields],
                    "written": not check})  # fmt: skip
    else:
        done = "to pin" if check else "pinned"
        if changes:
            _print_pins(path, [change for _, change in changes], done)
        if fields:
            print_table(f"{card}: {len(fields)} fields {'differ' if check else 'written'}",
                        ("field", "before", "now"),
                        [(f.field, _shown(f.old), _shown(f.new)) for f in fields])  # fmt: skip
        if not changes and not fields:
            click.echo(f"{path}: every pin is current.")
    if check and (changes or fields):
        click.get_current_context().exit(1)


def _write(pinned: Sequence[PinnedManifest], page: Card | None, *, as_json: bool) -> None:
    """Writes the manifests and then the card; says what was written if one cannot be.

    Raises:
        CacheError: A file cannot be written.
    """
    pending = [file for file in pinned if file.changes]
    card = page if page is not None and page.changes else None
    for file in pending:
        file.check()
    if card is not None:
        card.check()
    written: list[PinnedManifest] = []
    try:
        for file in pending:
            file.write()
            written.append(file)
        if card is not None:
            card.write()
    except CacheError as error:
        for file in written if not as_json else ():
            _print_pins(file.path, file.changes, "pinned")
        if not as_json or not written:
            raise
        names = ", ".join(str(file.path) for file in written)
        raise CacheError(f"{error.message} Already pinned: {names}.", hint=error.hint) from error


def _print_pins(path: Path, changes: Sequence[PinChange], done: str) -> None:
    rows = [(change.file, change.key, change.old or "-", change.new) for change in changes]
    print_table(f"{path}: {len(changes)} {done}", ("file", "pin", "before", "now"), rows)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, dict):
        return str(value.get("output", {}).get("url", value))
    return "-" if value is None else str(value)
