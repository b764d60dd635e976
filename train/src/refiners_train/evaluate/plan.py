"""Chooses the trials for what was typed: adapters, files, measures, and adapters together."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import refiners
from refiners.errors import NotInstalledError, OptionError, RefinersError, UnknownNameError
from refiners.measure import find_measure

from refiners_train.evaluate.result import Fault, Part

if TYPE_CHECKING:
    from refiners_core.measure import Measure

_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


class Plan(NamedTuple):
    """The groups of adapters to measure; those of a group are worn together."""

    groups: tuple[tuple[Part, ...], ...]
    faults: tuple[Fault, ...]
    """The measures that could not be imported, if all are measured."""

    @property
    def alone(self) -> tuple[tuple[Part, ...], ...]:
        """The groups of one, and one for each member of a larger group."""
        return tuple(dict.fromkeys((part,) for group in self.groups for part in group))

    @property
    def together(self) -> tuple[tuple[Part, ...], ...]:
        """The groups of several adapters."""
        return tuple(group for group in self.groups if len(group) > 1)


def planned(names: Sequence[str], like: str, base: str) -> Plan:
    """Returns the trials for some names.

    Args:
        names: Names of adapters with a measure, names of measures, or files; `a+b` wears both. If
            there are none, every measure of the base.
        like: The measure of every name that has none of its own, such as a file; may be empty.
        base: The base whose measures are run without names; empty for those of all bases.

    Raises:
        UnknownNameError, AmbiguousNameError: A name leads to no measure.
        OptionError: A file is named without `like`.
    """
    if not names:
        return _all(base)
    return Plan(tuple(_group(name, like) for name in names), ())


def _all(base: str) -> Plan:
    """Returns all measures of a base; a broken package becomes a fault."""
    groups: list[tuple[Part, ...]] = []
    faults: list[Fault] = []
    for declared in refiners.measures():
        try:
            measure = refiners.load_measure(declared.id)
        except RefinersError as error:
            faults.append(Fault(declared.id, str(error)))
            continue
        if base in ("", measure.base):
            groups.append((Part(declared.name, measure.adapter),))
    return Plan(tuple(groups), tuple(faults))


def _group(text: str, like: str) -> tuple[Part, ...]:
    words = [text] if Path(text).exists() else text.split("+")
    parts = tuple(_part(word, like) for word in words)
    if len(parts) > 1 and (lacking := [p.measure for p in parts if not p.adapter]):
        raise OptionError(
            f"{lacking[0]} is a measure of a model, and {text} wears adapters together.",
            hint=f"Name it apart: refiners evaluate {lacking[0]}.",
        )
    if len({*parts}) < len(parts):
        raise OptionError(f"{text} names an adapter twice.", hint="Name each adapter once.")
    return parts


def _part(word: str, like: str) -> Part:
    """Returns a name with its measure, or with the measure that it is to be measured like."""
    is_file = word.endswith(_ENDINGS) or "/" in word or "\\" in word or word.startswith("hf:")
    if is_file and not like:
        raise OptionError(
            f"{word} is a file, and nothing says how to measure it.",
            hint=f"Add --like and a measure, such as --like {_any()}.",
        )
    if is_file:
        return Part(like, word if _measure(like).adapter else "")
    try:
        declared = find_measure(word)
    except UnknownNameError as error:
        if not _is_adapter(word):
            raise
        if not like:
            raise UnknownNameError(
                f"no package measures the adapter {word!r}.",
                hint=f"Add --like and a measure, such as --like {_any()}.",
            ) from error
        return Part(like, word)
    if like and _is_adapter(word):
        return Part(like, word)
    return Part(declared.name, _measure(declared.id).adapter)


def _measure(name: str) -> Measure:
    return refiners.load_measure(name)


def _is_adapter(name: str) -> bool:
    from refiners.choose.lookup import find_adapter

    try:
        find_adapter(name)
    except (NotInstalledError, UnknownNameError):
        return False
    return True


def _any() -> str:
    """Returns the name of a measure of an adapter, for a hint."""
    names = [measure.name for measure in refiners.measures()]
    close = get_close_matches("lora", names, n=1, cutoff=0.3)
    return close[0] if close else "MEASURE"
