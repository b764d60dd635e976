"""What a manifest promises, compared with this core and with the bases that are installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from refiners.manifest.schema import AdapterSpec, ModelSpec, Variant
from refiners_core import API_VERSION


class Base(NamedTuple):
    """What an installed base model publishes."""

    name: str
    facts: Mapping[str, Any]
    slots: frozenset[str]
    """Empty where neither the model nor its family lists them."""


def installed_bases() -> tuple[Base, ...]:
    """Returns what adapters can be made for here; slots are those of the family."""
    from refiners.installed.inventory import scan

    models = scan().models
    of_families = {one.name: one.spec.slots for one in models}
    return tuple(
        Base(
            one.spec.base or one.name,
            one.spec.facts,
            frozenset(one.spec.slots or of_families.get(one.spec.family, ())),
        )
        for one in models
    )


def broken_promises(
    name: str, spec: AdapterSpec | ModelSpec, bases: Sequence[Base]
) -> Iterator[str]:
    """Yields what cannot come true of an adapter or a model.

    Args:
        name: What the manifest calls it.
        spec: Its table.
        bases: What is known of base models.
    """
    from packaging.specifiers import SpecifierSet

    if not SpecifierSet(spec.core_api).contains(API_VERSION, prereleases=True):
        yield (
            f"{name}: core-api {spec.core_api!r} excludes the core that is here, {API_VERSION}; "
            f'write core-api = ">={API_VERSION},<{int(API_VERSION.split(".")[0]) + 1}"'
        )
    if isinstance(spec, AdapterSpec):
        for index, variant in enumerate(spec.variant):
            for what in _of_variant(variant, bases):
                yield f"{name}.variant[{index}]: {what}"


def _of_variant(variant: Variant, bases: Sequence[Base]) -> Iterator[str]:
    known = [one for one in bases if variant.base in (None, one.name)]
    if not known:  # a base that is not installed here may publish anything
        return
    slots = {slot for one in known for slot in one.slots}
    if all(one.slots for one in known):
        for slot in dict.fromkeys(target.slot for target in variant.targets):
            if slot not in slots:
                yield f"no slot is called {slot!r}{_near(slot, slots)}"
    for fact, wanted in variant.facts.items():
        stated = [one.facts[fact] for one in known if fact in one.facts]
        where = variant.base or "any base"
        if not stated:
            facts = {name for one in known for name in one.facts}
            yield f"{where} does not state the fact {fact!r}{_near(fact, facts)}"
        elif not any(value == wanted for value in stated):
            values = " or ".join(dict.fromkeys(map(repr, stated)))
            yield f"{where} states {fact} = {values}, never {wanted!r}"


def _near(name: str, known: set[str]) -> str:
    close = get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"
