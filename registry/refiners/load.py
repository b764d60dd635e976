"""Loads by name: resolves, fetches, verifies, and only then imports the code of a plugin."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from refiners.build import build_adapter, build_model
from refiners.discover import Installed, package_folders
from refiners.errors import OptionError
from refiners.fetch import fetch_source, header_of
from refiners.hub import Hub
from refiners.local import is_local, open_local
from refiners.lock import held, named
from refiners.lookup import find_adapter, find_model
from refiners.manifest import AdapterSpec, Variant
from refiners.policy import Guard
from refiners.verdict import (
    Accepted,
    ModelFacts,
    Rejected,
    Verdict,
    Worn,
    check_shapes,
    choose,
    trace,
)
from refiners_core import API_VERSION
from refiners_core.hookspecs import load_installed

if TYPE_CHECKING:
    import torch

    from refiners_core import Adapter, Chain, Model, Source


def load_model(
    what: Any,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    offline: bool | None = None,
    lock: str | Path | None = None,
) -> Model:
    """Loads a base model by the name that an installed package gives it, or from where it lies.

    Args:
        what: Its name, such as `sd15`, or `distribution:name`; or the path of a folder as diffusers
            publishes it, or of a single file; or a live pipeline of diffusers, whose tensors the
            model shares.
        device: Where its weights go; the model's own default if None.
        dtype: What they are cast to while loading; as published if None.
        offline: Whether to stay offline; None asks REFINERS_OFFLINE and HF_HUB_OFFLINE.
        lock: A `refiners.lock` that all that has a name is held to; None asks REFINERS_LOCK.

    Returns:
        The model, which wears nothing.

    Raises:
        UnknownNameError, AmbiguousNameError, NotInstalledError: The name leads nowhere, or to two.
        UnsupportedError: A kind of source that this version cannot read.
        LockError: It is not what was locked.
        NetworkError, IntegrityError, CacheError: Its weights cannot be had as they are pinned.
        PolicyError: A rule of this project or user, or an advisory, refuses it.
        PluginError: The code that builds it failed.
        ModelError, WeightsError: What lies there is unreadable, or no model that is known here.
    """
    load_hooks()
    if is_local(what):
        return open_local(what, **_torch_options(device, dtype), offline=offline)
    model = held(find_model(what), lock)
    guard = _guarded(model, lock)
    options = _torch_options(device, dtype)
    roles = {role: role for role in model.spec.weights}
    settings = model.spec.settings
    source = fetch_source(model, roles, model.name, settings, offline=offline, guard=guard)
    return build_model(model, source, **options)


def load_adapter(
    name: str,
    model: Model | Chain | None = None,
    *,
    offline: bool | None = None,
    lock: str | Path | None = None,
    **options: Any,
) -> Adapter:
    """Loads an adapter by name and, given a model, puts it on.

    Without a model the adapter is not bound yet: its first `inject` picks the variant that suits
    that model, and fetches then.

    Args:
        name: Its name, such as `controlnet-canny`, or `distribution:name`.
        model: What it should go on.
        offline: Whether to stay offline; None asks REFINERS_OFFLINE and HF_HUB_OFFLINE.
        lock: A `refiners.lock` that everything is held to; None asks REFINERS_LOCK.
        **options: What the adapter's own constructor takes.

    Raises:
        UnknownNameError, AmbiguousNameError, NotInstalledError: The name leads nowhere, or to two.
        IncompatibleError: No variant suits the model; nothing was imported or fetched.
        OptionError: The adapter takes no such option, or the model is none.
        LockError: It is not what was locked.
        NetworkError, IntegrityError, CacheError: Its weights cannot be had as they are pinned.
        PolicyError: A rule of this project or user, or an advisory, refuses it.
        PluginError: The code of the adapter failed.
    """
    from refiners_core import Chain

    load_hooks()
    found = held(find_adapter(name), lock)
    guard = _guarded(found, lock)
    if model is not None:
        if not isinstance(model, Chain):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise OptionError(
                f"{name} goes on a model or a Chain, not on {type(model).__name__}.",
                hint=f'Try load_adapter("{name}", refiners.load_model("playground")).',
            )
        variant_for(found, model, guard=guard)
    adapter = build_adapter(found, WeightsOf(found, offline, guard), options)
    _made_from[adapter] = found
    return adapter if model is None else adapter.inject(model)


def outline(model: str, adapters: Iterable[str] = ()) -> Model:
    """Builds a model and what it should wear on the meta device: all structure, no weights.

    Raises:
        RefinersError: As `load_model` and `load_adapter` do; nothing is fetched.
    """
    found_model = find_model(model)
    _guarded(found_model, None)
    built = build_model(found_model, None, device="meta")
    for name in adapters:
        found = find_adapter(name)
        _guarded(found, None)
        variant_for(found, built)
        adapter = build_adapter(found, None, {})
        _made_from[adapter] = found
        adapter.inject(built)
    return built


@dataclass(frozen=True)
class WeightsOf:
    """Chooses, fetches and verifies the files of an adapter for the model that it goes on.

    Args:
        adapter: As its manifest describes it.
        offline: Whether to stay offline.
        guard: The rules that hold.
    """

    adapter: Installed[AdapterSpec]
    offline: bool | None
    guard: Guard

    def __call__(self, model: Chain) -> Source:
        """Returns verified files and the settings of the variant that suits.

        Raises:
            IncompatibleError: None does.
        """
        hub = Hub.from_environment(self.offline)
        variant = variant_for(self.adapter, model, hub, guard=self.guard)
        return fetch_source(
            self.adapter,
            variant.files,
            variant.label,
            variant.settings,
            offline=self.offline,
            guard=self.guard,
        )


def variant_for(
    adapter: Installed[AdapterSpec],
    model: Chain,
    hub: Hub | None = None,
    *,
    guard: Guard | None = None,
) -> Variant:
    """Returns the variant of an adapter that suits a model.

    Args:
        adapter: As its manifest describes it.
        model: What it should go on.
        hub: Asked for the headers of the files whose shapes the manifest declares; None asks
            nobody.
        guard: The rules that hold here.

    Raises:
        IncompatibleError: None does; it has the reasons.
        PolicyError: One would, and a rule refuses it.
    """
    facts = facts_of(model)
    return choose(adapter, facts, verdicts(adapter, facts, hub, guard))


def verdicts(
    adapter: Installed[AdapterSpec],
    model: ModelFacts,
    hub: Hub | None = None,
    guard: Guard | None = None,
) -> tuple[Verdict, ...]:
    """Judges the variants of an adapter, up to the headers of the files of the one that suits."""
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
    """Returns what compatibility looks at; a tree that is no model offers no slots."""
    from refiners_core import Model

    dtype = str(model.dtype).removeprefix("torch.")
    if not isinstance(model, Model):
        return ModelFacts(f"a {type(model).__name__}", None, slots=frozenset(), dtype=dtype)
    worn = tuple(_worn(adapter) for adapter in model.adapters)
    slots = frozenset(model.slots)
    return ModelFacts(f"this {model.base} model", model.base, model.facts, slots, dtype, worn)


def _worn(adapter: Adapter) -> Worn:
    found = _made_from.get(adapter)
    if found is None:
        return Worn(adapter.name, adapter.name)
    return worn_by_manifest(found, adapter.source.variant if adapter.source else None)


def worn_by_manifest(found: Installed[AdapterSpec], label: str | None = None) -> Worn:
    """Returns what is known of an adapter as if it were worn; of one variant if that is named."""
    bound = [v for v in found.spec.variant if label in (None, v.label)]
    targets = tuple(target for variant in bound for target in variant.targets)
    return Worn(found.name, found.id, found.spec.conflicts, targets)


_made_from: Final[WeakKeyDictionary[Adapter, Installed[AdapterSpec]]] = WeakKeyDictionary()
"""Which manifest an adapter was built from; an adapter itself knows no registry."""


def _guarded(plugin: Installed[Any], lock: str | Path | None) -> Guard:
    """Returns the rules that hold, having let the package pass before its code is imported."""
    guard = Guard.from_environment(is_locked=named(lock) is not None)
    guard.admit(plugin)
    for said in guard.warnings(plugin):
        warnings.warn(said, DeprecationWarning, stacklevel=3)
    return guard


@cache
def load_hooks() -> None:
    """Loads the hook modules of other packages, once; only verbs that run things do."""
    for broken in load_installed():
        warnings.warn(
            f"the hooks {broken.name} of {broken.dist} could not be loaded and are left out: "
            f"{type(broken.error).__name__}: {broken.error}",
            RuntimeWarning,
            stacklevel=3,
        )


def _has_package(package: str) -> bool:
    try:
        return bool(package_folders(package))
    except Exception:  # a broken finder on the import path: as good as not there
        return False


def _torch_options(device: Any, dtype: Any) -> dict[str, Any]:
    import torch

    try:
        checked = None if device is None else torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise OptionError(f"no device is {device!r}.", hint='Try device="cpu".') from error
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise OptionError(f"weights cannot be {dtype!r}.", hint='Try dtype="float32".')
    if isinstance(dtype, str) and found is None:
        raise OptionError(f"there is no dtype {dtype!r}.", hint='Try dtype="float32".')
    return {"device": checked, "dtype": found}
