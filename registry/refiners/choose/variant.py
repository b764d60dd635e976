"""Chooses the variant of an adapter that suits a model and the adapters that it wears."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from refiners.choose.compatibility import (
    Accepted,
    ModelFacts,
    Rejected,
    Verdict,
    WornAdapter,
    check_shapes,
    choose,
    trace,
)
from refiners.choose.policy import Guard
from refiners.hub.client import Hub
from refiners.hub.shapes import header_of
from refiners.installed.inventory import Installed, package_folders
from refiners.manifest.schema import AdapterSpec, Variant
from refiners_core import API_VERSION

if TYPE_CHECKING:
    from refiners_core import Adapter, Advice, Chain


def variant_for(
    adapter: Installed[AdapterSpec],
    model: Chain,
    hub: Hub | None = None,
    *,
    guard: Guard | None = None,
) -> Variant:
    """Returns the variant of an adapter that suits a model.

    Args:
        adapter: The installed adapter.
        model: The model that is to wear it.
        hub: Used to read the headers of files whose shapes the manifest declares; None skips this
            check.
        guard: The policies and advisories.

    Raises:
        IncompatibleError: No variant suits; the error has the reasons.
        PolicyError: A variant suits, but a rule refuses it.
    """
    facts = facts_of(model)
    return choose(adapter, facts, verdicts(adapter, facts, hub, guard))


def verdicts(
    adapter: Installed[AdapterSpec],
    model: ModelFacts,
    hub: Hub | None = None,
    guard: Guard | None = None,
) -> tuple[Verdict, ...]:
    """Judges the variants of an adapter, including the headers of the first suitable one."""
    api = API_VERSION
    judged = [*trace(adapter, model, api_version=api, has_package=_has_package, guard=guard)]
    for index, verdict in enumerate(judged):
        if isinstance(verdict, Accepted) and hub is not None:
            judged[index] = misfit = _misfit(verdict, adapter, model, hub) or verdict
            if isinstance(misfit, Accepted):
                break
    return tuple(judged)


def _misfit(
    accepted: Accepted, adapter: Installed[AdapterSpec], model: ModelFacts, hub: Hub
) -> Rejected | None:
    for name in accepted.variant.files.values():
        file = adapter.spec.weights[name]
        header = header_of(file, hub, dist=adapter.dist) if file.shapes else None
        if header is not None and (
            refusal := check_shapes(accepted.candidate, str(file), file.shapes, header, model)
        ):
            return refusal
    return None


def facts_of(model: Chain) -> ModelFacts:
    """Returns the facts about a model for compatibility; a plain tree has no slots."""
    from refiners_core import Model

    dtype = str(model.dtype).removeprefix("torch.")
    if not isinstance(model, Model):
        return ModelFacts(f"a {type(model).__name__}", None, slots=frozenset(), dtype=dtype)
    worn = tuple(_worn(adapter) for adapter in model.adapters)
    slots = frozenset(model.slots)
    return ModelFacts(f"this {model.base} model", model.base, model.facts, slots, dtype, worn)


def _worn(adapter: Adapter) -> WornAdapter:
    plugin = made_from.get(adapter)
    if plugin is None:
        return WornAdapter(adapter.name, adapter.name)
    return worn_by_manifest(plugin, adapter.source.variant if adapter.source else None)


def worn_by_manifest(plugin: Installed[AdapterSpec], label: str | None = None) -> WornAdapter:
    """Returns the facts about an adapter as if it were worn, with one of its variants or all."""
    bound = [v for v in plugin.spec.variant if label in (None, v.label)]
    targets = tuple(target for variant in bound for target in variant.targets)
    return WornAdapter(plugin.name, plugin.id, plugin.spec.conflicts, targets)


def advice_for(spec: AdapterSpec, variant: Variant) -> Advice | None:
    """Returns the advice of a manifest for a variant; None without any."""
    from refiners_core import Advice

    table = spec.advice_for(variant)
    return None if table is None else Advice(**table.fields)


made_from: Final[WeakKeyDictionary[Adapter, Installed[AdapterSpec]]] = WeakKeyDictionary()
"""The installed adapter from which each adapter was built; the core has no such link."""


def _has_package(package: str) -> bool:
    try:
        return bool(package_folders(package))
    except KeyboardInterrupt:
        raise
    except BaseException:  # a broken finder on the import path counts as a missing package
        return False
