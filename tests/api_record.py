"""Keeps the record of public signatures: `python tests/api_record.py` writes `signatures.txt`.

A new name, or a new argument with a default, joins the record. What goes away or changes otherwise
is refused until API_VERSION is raised; then the record lists it, and CHANGELOG.md must name it.
"""

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from enum import EnumMeta
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from refiners_core import API_VERSION
from refiners_core.public import MODULES, public_names

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "tests/signatures.txt"
CHANGELOG = ROOT / "CHANGELOG.md"
_BREAK = re.compile(r"# (?P<version>\d+\.\d+): (?P<what>removed|changed) (?P<name>\S+)")


class Record(NamedTuple):
    """The signatures at a version, and the breaks that led to them."""

    version: str
    signatures: Mapping[str, str]
    breaks: tuple[tuple[str, str, str], ...]
    """Version, `removed` or `changed`, and name of each."""

    def text(self) -> str:
        lines = [f"API {self.version}"]
        lines += [f"# {version}: {what} {name}" for version, what, name in self.breaks]
        return "\n".join([*lines, *(n + s for n, s in sorted(self.signatures.items())), ""])


def read(text: str) -> Record:
    head, *lines = text.splitlines()
    breaks = tuple(
        (match["version"], match["what"], match["name"])
        for line in lines
        if (match := _BREAK.fullmatch(line))
    )
    pairs = (line.partition("(") for line in lines if not line.startswith("#"))
    return Record(head.removeprefix("API "), {n: f"{p}{s}" for n, p, s in pairs}, breaks)


def current() -> dict[str, str]:
    """Returns the signature of each public name, and of each public method of a public class."""
    values = {
        f"{module}.{name}": getattr(import_module(module), name)
        for module in MODULES
        for name in public_names(module)
    }
    kinds = {value for value in values.values() if isinstance(value, type)}
    return {
        name: signature_of(member)
        for path, value in values.items()
        for name, member in _members(path, value, kinds)
    }


def _members(path: str, value: Any, kinds: set[type]) -> Iterator[tuple[str, Any]]:
    """Yields a value and, of a class, its methods; those of another public class are left out."""
    yield path, value
    if not isinstance(value, type):
        return
    classes = [c for c in value.__mro__ if c is value or c not in kinds]
    ours = [c for c in classes if c.__module__.partition(".")[0] in ("refiners", "refiners_core")]
    for name in sorted({name for c in ours for name in vars(c) if not name.startswith("_")}):
        member = getattr(value, name)
        if inspect.isroutine(member):
            yield f"{path}.{name}", member


def signature_of(value: Any) -> str:
    """Returns the arguments of a callable: names, kinds and whether each has a default."""
    if not callable(value):
        return ""
    if isinstance(value, EnumMeta):  # which later versions of Python describe in other words
        return "(...)"
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return "(...)"
    words: list[str] = []
    is_named = False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL or parameter.kind is parameter.VAR_KEYWORD:
            is_named |= parameter.kind is parameter.VAR_POSITIONAL
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            words.append(f"{stars}{parameter.name}")
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not is_named:
            words.append("*")
            is_named = True
        mark = "/" if parameter.kind is parameter.POSITIONAL_ONLY else ""
        words.append(f"{mark}{parameter.name}{'' if parameter.default is parameter.empty else '='}")
    return f"({', '.join(words)})"


def is_compatible(old: str, new: str) -> bool:
    """Whether every call that an old signature accepts is accepted by a new one."""
    if old == new:
        return True
    if not (old.startswith("(") and new.startswith("(")) or "..." in old + new:
        return False
    (old_places, old_names), (new_places, new_names) = _parts(old), _parts(new)
    names = [word.rstrip("=") for word in new_places]
    kept = all(
        index < len(names)
        and names[index] == word.rstrip("=")
        and (new_places[index].endswith("=") or not word.endswith("="))
        for index, word in enumerate(old_places)
    )
    known = {word.rstrip("="): word.endswith("=") for word in (*new_places, *new_names)}
    has_all = "**" in "".join(new_names) or all(w.rstrip("=") in known for w in old_names)
    still_optional = all(known.get(w.rstrip("="), True) for w in old_names if w.endswith("="))
    before = {word.rstrip("=") for word in (*old_places, *old_names)}
    added = [w for w in (*new_places, *new_names) if w.rstrip("=") not in before]
    return kept and has_all and still_optional and all(w.endswith("=") or "*" in w for w in added)


def _parts(signature: str) -> tuple[list[str], list[str]]:
    """Splits a signature into the arguments by position, and those by name alone."""
    words = [word for word in signature[1:-1].split(", ") if word]
    stars = [index for index, word in enumerate(words) if word.startswith("*")]
    cut = stars[0] if stars else len(words)
    return words[:cut], [word for word in words[cut:] if word != "*"]


def broken(record: Record, now: Mapping[str, str]) -> list[tuple[str, str]]:
    """Returns the names that went away or changed so that old calls fail."""
    return [
        ("removed" if name not in now else "changed", name)
        for name, signature in record.signatures.items()
        if name not in now or not is_compatible(signature, now[name])
    ]


def renewed(record: Record, now: Mapping[str, str], version: str) -> Record:
    """Returns the record of what is public now.

    Raises:
        ValueError: Something broke, and the version of the API is the recorded one.
    """
    breaks = broken(record, now)
    if breaks and version == record.version:
        lines = "".join(f"\n  {what} {name}" for what, name in breaks)
        raise ValueError(f"raise API_VERSION, {version}, and name these in CHANGELOG.md:{lines}")
    return Record(version, now, (*record.breaks, *((version, what, n) for what, n in breaks)))


def unannounced(record: Record, changelog: str) -> list[str]:
    """Returns the names of breaks that a changelog does not mention."""
    names = (name.rpartition(".")[2] for _, _, name in record.breaks)
    return [name for name in names if not re.search(rf"\b{re.escape(name)}\b", changelog)]


def main() -> None:
    before = read(RECORD.read_text()) if RECORD.exists() else Record(API_VERSION, {}, ())
    try:
        RECORD.write_text(renewed(before, current(), API_VERSION).text())
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
