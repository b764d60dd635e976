"""Compares the requirements of a manifest with this core and with the installed base models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from refiners.manifest.schema import AdapterSpec, Spec, Variant
from refiners_core import API_VERSION


class Base(NamedTuple):
    """The facts and the slots of an installed base model, or of the models of a family."""

    name: str
    facts: Mapping[str, Any] | None
    """The facts; None if its models have different ones."""
    slots: frozenset[str]
    """The slots; empty if neither the model nor its family lists them."""


def installed_bases() -> tuple[Base, ...]:
    """Returns the installed base models and the families that list their slots.

    A model without a list of slots has those of its family.
    """
    from refiners.installed.inventory import scan

    inventory = scan()
    slots = {plugin.name: plugin.spec.slots for plugin in (*inventory.families, *inventory.models)}
    models = (
        Base(
            model.spec.base or model.name,
            model.spec.facts,
            frozenset(model.spec.slots or slots.get(model.spec.family, ())),
        )
        for model in inventory.models
    )
    families = (
        Base(family.name, None, frozenset(family.spec.slots))
        for family in inventory.families
        if family.spec.slots
    )
    return (*models, *families)


def broken_promises(name: str, spec: Spec, bases: Sequence[Base]) -> Iterator[tuple[str, str]]:
    """Yields the requirements of a plugin that can never be met, each with the rule it breaks.

    Args:
        name: The name in the manifest.
        spec: The table of the manifest.
        bases: The installed base models.
    """
    from packaging.specifiers import SpecifierSet

    if not SpecifierSet(spec.core_api).contains(API_VERSION, prereleases=True):
        yield (
            "core-range",
            (
                f"{name}: core-api {spec.core_api!r} excludes the installed core, {API_VERSION}; "
                f'write core-api = ">={API_VERSION},<{int(API_VERSION.split(".")[0]) + 1}"'
            ),
        )
    if isinstance(spec, AdapterSpec):
        for index, variant in enumerate(spec.variant):
            for problem in _of_variant(variant, bases):
                yield "targets", f"{name}.variant[{index}]: {problem}"


def _of_variant(variant: Variant, bases: Sequence[Base]) -> Iterator[str]:
    known = [base for base in bases if variant.base in (None, base.name)]
    if not known:  # a base that is not installed may have any slots and facts
        return
    slots = {slot for base in known for slot in base.slots}
    if all(base.slots for base in known):
        for slot in dict.fromkeys(target.slot for target in variant.targets):
            if slot not in slots:
                yield f"the slot {slot!r} does not exist{_near(slot, slots)}"
    wanted_slots = {target.slot for target in variant.targets}
    known = [base for base in known if not base.slots or wanted_slots <= base.slots] or known
    if any(base.facts is None for base in known):
        return
    for fact, wanted in variant.facts.items():
        stated = [base.facts[fact] for base in known if base.facts and fact in base.facts]
        where = variant.base or "any base"
        if not stated:
            facts = {name for base in known for name in base.facts or ()}
            yield f"{where} does not state the fact {fact!r}{_near(fact, facts)}"
        elif not any(value == wanted for value in stated):
            values = " or ".join(dict.fromkeys(map(repr, stated)))
            yield f"{where} states {fact} = {values}, never {wanted!r}"


def _near(name: str, known: set[str]) -> str:
    close = get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"
