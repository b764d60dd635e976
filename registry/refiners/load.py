"""Loads by name: resolves, fetches, verifies, and only then imports the code of a plugin."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, cast

from refiners.choose.lock import held, named
from refiners.choose.lookup import find_adapter, find_model
from refiners.choose.policy import Guard
from refiners.choose.variant import made_from, variant_for
from refiners.errors import DeprecationNotice, OptionError
from refiners.hub.client import Hub
from refiners.installed.factory import build_adapter, build_model
from refiners.installed.hook_modules import load_hooks
from refiners.installed.inventory import Installed
from refiners.manifest.schema import AdapterSpec
from refiners.sources.fetch import fetch_source
from refiners.sources.local import is_local, open_local, open_repository
from refiners.sources.repository import PREFIX
from refiners.sources.user_file import check_file, located, with_file
from refiners_core.argument_names import unknown_arguments

if TYPE_CHECKING:
    import torch

    from refiners_core import Adapter, Chain, Model, Source
    from refiners_core.models.diffusion import LatentDiffusion


def load_model(
    what: Any,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    offline: bool | None = None,
    lock: str | Path | None = None,
    **unknown: Never,
) -> LatentDiffusion:
    """Loads a base model by the name that an installed package gives it, or from where it lies.

    Args:
        what: Its name, such as `sd15`, or `distribution:name`; or the path of a folder as diffusers
            publishes it, or of a single file; or `hf:organisation/name`, a repository of the Hub
            in that layout, with `@commit` behind it, and `/file.safetensors` for one file of it;
            or a live pipeline of diffusers, whose tensors the model shares.
        device: Where its weights go; the model's own default if None.
        dtype: What they are cast to while loading; as published if None.
        offline: Whether to stay offline; None asks REFINERS_OFFLINE and HF_HUB_OFFLINE.
        lock: A `refiners.lock` that all that has a name is held to; None asks REFINERS_LOCK.
        **unknown: Refused, with the name that it has here.

    Returns:
        The model, which wears nothing. It is typed as the diffusion model that most names give; a
        package may give another `Model`.

    Raises:
        ArgumentError: It does not take such an argument.
        UnknownNameError, AmbiguousNameError, NotInstalledError: The name leads nowhere, or to two.
        UnsupportedError: A kind of source that this version cannot read.
        LockError: It is not what was locked.
        NetworkError, IntegrityError, CacheError: Its weights cannot be had as they are pinned.
        PolicyError: A rule of this project or user, or an advisory, refuses it.
        PluginError: The code that builds it failed.
        ModelError, WeightsError: What lies there is unreadable, or no model that is known here.
    """
    if unknown:
        raise unknown_arguments("load_model", unknown, ("device", "dtype", "offline", "lock"))
    load_hooks()
    if is_local(what):
        opened = open_local(what, **torch_options(device, dtype), offline=offline)
        return cast("LatentDiffusion", opened)
    if isinstance(what, str) and what.startswith(PREFIX):
        options = torch_options(device, dtype)
        opened = open_repository(what, **options, offline=offline, lock=lock)
        return cast("LatentDiffusion", opened)
    model = held(find_model(what), lock)
    guard = _guarded(model, lock)
    options = torch_options(device, dtype)
    roles = {role: role for role in model.spec.weights}
    settings = model.spec.settings
    source = fetch_source(model, roles, model.name, settings, offline=offline, guard=guard)
    return cast("LatentDiffusion", build_model(model, source, **options))


def load_adapter(
    name: str,
    model: Model | Chain | None = None,
    *,
    offline: bool | None = None,
    lock: str | Path | None = None,
    file: str | os.PathLike[str] | None = None,
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
        file: For an adapter that reads a file of yours, such as `lora`: a path, or
            `hf:organisation/name@commit/file.safetensors`.
        **options: What the adapter's own constructor takes.

    Raises:
        UnknownNameError, AmbiguousNameError, NotInstalledError: The name leads nowhere, or to two.
        IncompatibleError: No variant suits the model; nothing was imported or fetched.
        OptionError: The adapter does not take such an option, its file is missing or of another
            kind, or `model` is not one.
        LockError: It is not what was locked.
        NetworkError, IntegrityError, CacheError: Its weights cannot be had as they are pinned.
        PolicyError: A rule of this project or user, or an advisory, refuses it.
        PluginError: The code of the adapter failed.
    """
    from refiners_core import Chain

    load_hooks()
    found = find_adapter(name)
    check_file(found, file)
    found = found if file is not None else held(found, lock)
    guard = _guarded(found, lock)
    if model is not None:
        if not isinstance(model, Chain):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise OptionError(
                f"{name} goes on a model or a Chain, not on {type(model).__name__}.",
                hint=f'Try load_adapter("{name}", refiners.load_model("playground")).',
            )
        variant_for(found, model, guard=guard)
    if file is not None:
        hub = Hub.from_environment(offline, largest=guard.largest)
        found = located(held(with_file(found, file, hub, lock, guard), lock))
    adapter = build_adapter(found, WeightsOf(found, offline, guard), options)
    made_from[adapter] = found
    return adapter if model is None else adapter.inject(model)


def outline(model: str, adapters: Iterable[str] = ()) -> Model:
    """Builds a model and what it should wear on the meta device: all structure, no weights.

    Args:
        model: Its name; or the path of a folder or a file, which is opened where it lies.
        adapters: Their names.

    Raises:
        RefinersError: As `load_model` and `load_adapter` do; nothing is fetched.
    """
    built = _outlined(model)
    for name in adapters:
        dress(built, name)
    return built


def dress(model: Model, name: str, **options: Any) -> Adapter:
    """Puts an adapter without weights on a model and returns it.

    Args:
        model: As `outline` builds it.
        name: The adapter's name.
        **options: What its constructor takes.

    Raises:
        RefinersError: As `load_adapter` does; nothing is fetched.
    """
    found = find_adapter(name)
    check_file(found, None)
    _guarded(found, None)
    variant_for(found, model)
    adapter = build_adapter(found, None, options)
    made_from[adapter] = found
    return adapter.inject(model)


def _outlined(model: str) -> Model:
    if is_local(model):
        from refiners_core.models.formats.open import open_model

        return open_model(Path(model))
    found = find_model(model)
    _guarded(found, None)
    return build_model(found, None, device="meta")


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


def _guarded(plugin: Installed[Any], lock: str | Path | None) -> Guard:
    """Returns the rules that hold, having let the package pass before its code is imported."""
    guard = Guard.from_environment(is_locked=named(lock) is not None)
    guard.admit(plugin)
    for said in guard.warnings(plugin):
        warnings.warn(said, DeprecationNotice, stacklevel=3)
    return guard


def torch_options(device: Any, dtype: Any) -> dict[str, Any]:
    """Returns a device that is here and a type that weights can have.

    Raises:
        OptionError: There is no such device, or no such type.
    """
    import torch

    try:
        checked = None if device is None else torch.device(device)
        if checked is not None:
            torch.empty(0, device=checked)  # a name of a device says nothing of one that is here
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = re.split(r"\.\s", str(error), maxsplit=1)[0].partition("\n")[0].rstrip(".")
        raise OptionError(
            f"no device is {device!r} on this machine: {reason}.", hint='Try device="cpu".'
        ) from error
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise OptionError(f"weights cannot be {dtype!r}.", hint='Try dtype="float32".')
    if isinstance(dtype, str) and found is None:
        raise OptionError(f"there is no dtype {dtype!r}.", hint='Try dtype="float32".')
    return {"device": checked, "dtype": found}
