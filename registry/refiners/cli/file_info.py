"""`refiners info FILE`: what a file is, read from its header without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from refiners.cli.report import print_json, print_table
from refiners.cli.shell_words import shell_words

_KEYS: Final = ("kind", "base", "layout", "reader", "refused", "asks")
_BEHIND: Final = ("trigger_words", "strength", "size", "sha256", "license", "terms")


def print_file_info(what: str, as_json: bool) -> None:
    """Prints the facts about a file, or a line for each file of a folder or a repository.

    Args:
        what: A path, or an address on the Hub.
        as_json: Whether to print JSON.

    Raises:
        RefinersError: The file does not exist, or is not a safetensors file.
    """
    from refiners.choose.policy import Guard
    from refiners.hub.client import Hub
    from refiners.sources.file_facts import facts_of_files

    guard = Guard.from_environment()
    files = facts_of_files(what, Hub.from_environment(largest=guard.largest), guard)
    if as_json:
        print_json(files[0] if len(files) == 1 else {"files": files})
    elif len(files) == 1:
        print_table(files[0]["file"], ("", ""), _rows(files[0]))
    else:
        columns = ("file", "kind", "base", "reader", "size")
        rows = [[_flat(key, facts.get(key, "")) for key in columns] for facts in files]
        print_table(f"{what}: {len(files)} files of weights", columns, rows)
    if not files:
        click.get_current_context().exit(1)


def _rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [(key, _flat(key, facts[key])) for key in _KEYS if key in facts]
    rows += [(key, _flat(key, value)) for key, value in facts.get("facts", {}).items()]
    rows += [(key.replace("_", " "), _flat(key, facts[key])) for key in _BEHIND if key in facts]
    notes = facts.get("notes", {})
    rows += [(key, text) for key, text in notes.items() if key != "license"]
    if "tensors" in facts:
        count = f"{facts['tensors']}, {facts['parameters'] / 1e6:.1f} M values"
        rows.append(("tensors", ", ".join((count, *facts.get("dtypes", [])))))
    if "holds" in facts:
        rows.append(("holds", ", ".join(facts["holds"])))
    if "next" in facts:
        rows.append(("next", shell_words(facts["next"], ["--adapter"])))
    return rows


def _flat(key: str, value: Any) -> str:
    if key == "size" and isinstance(value, int):
        return f"{value / 1e6:.1f} MB" if value >= 100_000 else f"{value} bytes"
    if isinstance(value, list):
        return ", ".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]
    return str(value)
