"""Determines the files that a lock pins: for an adapter, those that the locked models need."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from refiners.choose.compatibility import Accepted, ModelFacts, choose
from refiners.choose.lock import Lock
from refiners.choose.policy import Guard
from refiners.choose.variant import verdicts
from refiners.errors import Notice
from refiners.host.shell import quoted
from refiners.hub.client import Hub
from refiners.installed.inventory import Installed, Inventory, package_file
from refiners.manifest.address import PREFIX
from refiners.manifest.schema import AdapterSpec, ModelSpec, WeightsFile

_SHOWN: Final = 3
"""The number of omitted plugins that a notice names."""

Plugins = tuple[Installed[Any], ...]


class Need(NamedTuple):
    """The files of a plugin that are needed, by their names in its manifest."""

    files: frozenset[str]
    bases: tuple[str, ...] = ()
    """The bases that need them; empty if all files are needed."""


def facts_of(model: Installed[ModelSpec]) -> ModelFacts:
    """Returns the facts that the manifest of a model states."""
    return ModelFacts(model.name, model.spec.base or model.name, model.spec.facts)


def need_of(
    plugin: Installed[Any],
    models: Sequence[Installed[ModelSpec]],
    guard: Guard,
    *,
    must_suit: bool = False,
) -> Need:
    """Returns the files of a plugin that some models need; all files if the adapter suits none.

    Args:
        plugin: A plugin; all but adapters need all their files.
        models: The models that are to wear the adapter.
        guard: The policies and advisories.
        must_suit: Whether an adapter without a variant for one of the models is an error.

    Raises:
        IncompatibleError, PolicyError: The adapter lacks such a variant, or a rule refuses it, and
            `must_suit` is set.
    """
    if not isinstance(plugin.spec, AdapterSpec):
        return Need(frozenset(plugin.spec.weights))
    names: set[str] = set()
    bases: list[str] = []
    for model in models:
        facts = facts_of(model)
        judged = verdicts(plugin, facts, guard=guard)
        if must_suit:
            choose(plugin, facts, judged)
        suitable = [verdict.variant for verdict in judged if isinstance(verdict, Accepted)]
        names.update(name for variant in suitable for name in variant.files.values())
        if suitable and facts.base:
            bases.append(facts.base)
    if not bases:
        return Need(frozenset(plugin.spec.weights))
    return Need(frozenset(names), tuple(sorted({*bases})))


def installed_models(inventory: Inventory, hub: Hub) -> tuple[Installed[ModelSpec], ...]:
    """Returns the models whose files are on this machine; all installed models if none are."""
    present = tuple(model for model in inventory.models if _is_here(model, hub))
    return present or inventory.models


def models_beside(
    plugins: Plugins, lock: Lock, inventory: Inventory, hub: Hub
) -> tuple[Installed[ModelSpec], ...]:
    """Returns the models for which adapters are locked if the user names none.

    Args:
        plugins: The plugins to lock.
        lock: The present lock, whose entries stay.
        inventory: The installed plugins.
        hub: The Hub whose cache has the files.

    Returns:
        The models in the lock or to be locked; otherwise those on this machine. Empty if one of
        them is a repository: its base is unknown, so adapters are locked for every base.
    """
    ids = {plugin.id for plugin in plugins} | {entry.id for entry in lock.plugin}
    if any(id.startswith(PREFIX) for id in ids):
        return ()
    locked = tuple(model for model in inventory.models if model.id in ids)
    return locked or installed_models(inventory, hub)


def suitable_plugins(
    inventory: Inventory, models: Sequence[Installed[ModelSpec]], guard: Guard
) -> Plugins:
    """Returns some models, the adapters that suit one of them and all preprocessors.

    Without models, all adapters are returned. A notice names the plugins that are left out.
    """
    adapters = tuple(a for a in inventory.adapters if need_of(a, models, guard).bases)
    allowed = tuple(p for p in inventory.preprocessors if not any(guard.package_refusals(p)))
    chosen: Plugins = (*(adapters if models else inventory.adapters), *models, *allowed)
    if left := sorted({*_names(inventory.plugins)} - {*_names(chosen)}):
        more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        warnings.warn(
            f"not locked, because they suit no locked model or a rule refuses them: "
            f"{', '.join(left[:_SHOWN])}{more}; to lock one as well: "
            f"{quoted('refiners', 'lock', left[0])}",
            Notice,
            stacklevel=2,
        )
    return chosen


def _names(plugins: Plugins) -> Iterator[str]:
    for plugin in plugins:
        yield plugin.name


def _is_here(model: Installed[ModelSpec], hub: Hub) -> bool:
    return all(_has(file, hub) for file in model.spec.weights.values())


def _has(file: WeightsFile, hub: Hub) -> bool:
    if file.scheme != "pkg":
        return hub.verified_file(file) is not None
    return package_file(*file.package_path) is not None
