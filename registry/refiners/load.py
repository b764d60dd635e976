"""Loads models and adapters: resolves, fetches and verifies first, then imports plugin code."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, TypeVar, cast, overload

from refiners.choose.admission import admit, guarded
from refiners.choose.lock import held
from refiners.choose.lookup import find_adapter, find_model
from refiners.choose.variant import advice_for, variant_for
from refiners.errors import OfflineError, OptionError, UnsupportedError
from refiners.host.shell import quoted
from refiners.hub.client import Hub
from refiners.installed.factory import build_adapter, build_model, import_reference
from refiners.installed.hook_modules import load_hooks
from refiners.installed.inventory import Installed
from refiners.manifest.schema import AdapterSpec
from refiners.preprocessing import PreprocessorsOf
from refiners.sources.answer import constructor_options
from refiners.sources.fetch import fetch_source
from refiners.sources.given import is_file
from refiners.sources.local import is_local, open_local, open_repository, outline_local
from refiners.sources.origin import NamedModel, introduce, originating
from refiners.sources.repository import PREFIX
from refiners.sources.torch_option import torch_options
from refiners.sources.user_file import (
    check_file,
    located,
    split_file,
    with_file,
)
from refiners.sources.variant_files import FilesBeside, WeightsOf
from refiners_core.argument_names import unknown_arguments

if TYPE_CHECKING:
    import torch

    from refiners_core import Adapter, Chain, Model
    from refiners_core.models.diffusion import LatentDiffusion

M = TypeVar("M", bound="Model")


@overload
def load_model(
    what: Any,
    *,
    kind: None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    offline: bool | None = None,
    lock: str | Path | None = None,
) -> LatentDiffusion: ...


@overload
def load_model(
    what: Any,
    *,
    kind: type[M],
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    offline: bool | None = None,
    lock: str | Path | None = None,
) -> M: ...


def load_model(
    what: Any,
    *,
    kind: type[Any] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    offline: bool | None = None,
    lock: str | Path | None = None,
    **unknown: Never,
) -> Any:
    """Loads a base model by name, from a path, from a Hub repository or from a live pipeline.

    Args:
        what: A name, such as `sd15` or `distribution:name`; the path of a folder or of a single
            file of an installed family, such as Stable Diffusion in the layout of diffusers or a
            language model; `hf:organisation/name` for such a repository of the Hub, optionally
            followed by `@commit` and by `/file.safetensors` for one of its files; or a live
            diffusers pipeline, whose tensors the model shares.
        kind: The class that the model must have, such as `LanguageModel`; any by default.
        device: The device of the weights; None for the default of the model.
        dtype: The dtype to which the weights are cast while loading; None to keep the published
            one.
        offline: Whether to stay offline; None reads REFINERS_OFFLINE and HF_HUB_OFFLINE.
        lock: The `refiners.lock` that pins named models and repositories; None reads REFINERS_LOCK.
        **unknown: Refused; the error suggests the argument that was meant.

    Returns:
        The model, without adapters. It is typed as `kind`; by default as the diffusion model that
        most names give, though a name may give another `Model`.

    Raises:
        ArgumentError: The function does not take an argument.
        UnknownNameError, AmbiguousNameError, NotInstalledError: The name does not lead to exactly
            one installed model.
        UnsupportedError: This version cannot read the source, or the model is of another kind.
        LockError: The model is not in the lock, or differs from it.
        NetworkError, IntegrityError, CacheError: The weights cannot be fetched as pinned.
        PolicyError: A rule of the project or the user, or an advisory, refuses the model.
        PluginError: The code that builds the model failed.
        ModelError, WeightsError: The files are unreadable, or not of a known model family.
    """
    if unknown:
        known = ("kind", "device", "dtype", "offline", "lock")
        raise unknown_arguments("load_model", unknown, known)
    load_hooks()
    options = torch_options(device, dtype)
    if is_local(what):
        model = open_local(what, **options, offline=offline)
    elif isinstance(what, str) and what.startswith(PREFIX):
        model = open_repository(what, **options, offline=offline, lock=lock)
    else:
        model = _named(what, **options, offline=offline, lock=lock)
    if kind is not None and not isinstance(model, kind):
        raise UnsupportedError(
            f"{what} is a {type(model).__name__}, not a {kind.__name__}.",
            hint=f"Leave kind= out, or try kind={type(model).__name__}.",
        )
    return model


def _named(what: Any, *, offline: bool | None, lock: str | Path | None, **options: Any) -> Model:
    """Loads a model by its name."""
    model = held(find_model(what), lock)
    guard = guarded(model, lock)
    roles = {role: role for role in model.spec.weights}
    settings = model.spec.settings
    source = fetch_source(model, roles, model.name, settings, offline=offline, guard=guard)
    return originating(build_model(model, source, **options), NamedModel(model))


def load_adapter(
    name: str | os.PathLike[str],
    model: Model | Chain | None = None,
    *,
    offline: bool | None = None,
    lock: str | Path | None = None,
    file: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Adapter:
    """Loads an adapter by name or from a file and, given a model, injects it.

    Without a model the adapter stays unbound: its first `inject` chooses the variant that suits
    the model, and fetches its files. A file finds the installed adapter that reads it, and the
    models that it suits, by its header alone.

    Args:
        name: A name, such as `controlnet-canny` or `distribution:name`; the path of a file or of a
            folder; or `hf:organisation/name`, optionally followed by `@commit` and by
            `/file.safetensors`. A text without a separator and without the ending of a file of
            weights is a name.
        model: The model to inject the adapter into.
        offline: Whether to stay offline; None reads REFINERS_OFFLINE and HF_HUB_OFFLINE.
        lock: The `refiners.lock` that pins the adapter; None reads REFINERS_LOCK.
        file: The user's file, for an adapter that is named, such as `lora`: a path, or
            `hf:organisation/name@commit/file.safetensors`.
        **options: Arguments for the constructor of the adapter, and answers to what a file leaves
            open, such as its image encoder.

    Raises:
        UnknownNameError, AmbiguousNameError, NotInstalledError: The name or the file does not lead
            to exactly one installed adapter.
        UnsupportedError: No adapter reads the file; the message has its kind.
        IncompatibleError: No variant suits the model, or the file is for another one; nothing was
            imported or fetched but a header.
        OptionError: The adapter does not take an option, `file` is missing or of another format,
            the file leaves something open, or `model` is not a Chain.
        LockError: The adapter is not in the lock, or differs from it.
        NetworkError, IntegrityError, CacheError: The weights cannot be fetched as pinned.
        PolicyError: A rule of the project or the user, or an advisory, refuses the adapter.
        PluginError: The code of the adapter failed.
    """
    from refiners.choose.conflict import check_conflicts
    from refiners_core import Chain

    load_hooks()
    check_conflicts()
    given_options = options
    if file is None and is_file(name):
        reader, given = None, name
    else:
        reader, given = find_adapter(cast("str", name)), file
        check_file(reader, given)
    plugin = reader if reader is None or given is not None else held(reader, lock)
    guard = guarded(plugin, lock)
    if model is not None:
        if not isinstance(model, Chain):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise OptionError(
                f"{name} goes on a model or a Chain, not on {type(model).__name__}.",
                hint=f'Try load_adapter("{name}", refiners.load_model("playground")).',
            )
        if plugin is not None:
            variant_for(plugin, model, guard=guard)
    if given is not None:
        hub = Hub.from_environment(offline, largest=guard.largest)
        joined = with_file(reader, given, hub, lock, guard, options)
        options = constructor_options(joined, options)
        if reader is None:
            admit(joined, guard)
        plugin = located(held(joined, lock))
        if model is not None:
            variant_for(plugin, model, guard=guard)
    assert plugin is not None, "an argument is a name or a file"
    adapter = build_adapter(plugin, WeightsOf(plugin, offline, guard), options)
    adapter.preprocessors = PreprocessorsOf(plugin, offline, lock)
    introduce(adapter, plugin, given_options)
    return adapter if model is None else adapter.inject(model)


def load_untrained(
    name: str,
    model: Model,
    *,
    offline: bool | None = None,
    lock: str | Path | None = None,
    **options: Any,
) -> Adapter:
    """Builds an adapter without its trained weights, injects it into a model and starts it.

    The settings and the other files, such as its image encoder, are those of the variant for the
    model. `adapter.learners()` are then ready to train.

    Args:
        name: The name of an installed adapter.
        model: The model with its weights, which then wears the adapter; for the structure alone, a
            model on the meta device.
        offline: Whether to stay offline; None reads REFINERS_OFFLINE and HF_HUB_OFFLINE.
        lock: The `refiners.lock` that pins the adapter; None reads REFINERS_LOCK.
        **options: Arguments for the constructor of the adapter.

    Raises:
        UnknownNameError, AmbiguousNameError, NotInstalledError: The name does not lead to exactly
            one installed adapter.
        IncompatibleError: No variant suits the model.
        OptionError: The adapter does not take an option.
        LockError: The adapter is not in the lock, or differs from it.
        NetworkError, IntegrityError, CacheError: A file cannot be fetched as pinned.
        PolicyError: A rule of the project or the user, or an advisory, refuses the adapter.
        PluginError: The code of the adapter failed.
    """
    load_hooks()
    plugin = held(find_adapter(name), lock)
    guard = guarded(plugin, lock)
    variant = variant_for(plugin, model, guard=guard)
    factory = import_reference(plugin.spec.factory, plugin.dist)
    left_out: set[str] = set(getattr(factory, "learned_files", ("weights",)))
    is_outline = model.device.type == "meta"
    if is_outline:  # encoders have structure without values
        files = {role: plugin.spec.weights[name] for role, name in variant.files.items()}
        left_out |= {role for role, file in files.items() if file.format == "safetensors"}
    adapter = build_adapter(plugin, FilesBeside(plugin, left_out, offline, guard), options)
    adapter.preprocessors = PreprocessorsOf(plugin, offline, lock)
    introduce(adapter, plugin, options)
    adapter.inject(model)
    if not is_outline:
        adapter.start(model)
    return adapter


def outline(model: str, adapters: Iterable[str] = ()) -> Model:
    """Builds a model with adapters on the meta device: the structure without the weights.

    Args:
        model: The name of the model; or the path of a folder or a file, whose weights are read.
        adapters: The names of the adapters, or their files; `NAME=FILE` names the reader of a file.

    Raises:
        RefinersError: The same as in `load_model` and `load_adapter`; nothing is fetched.
    """
    built = _outlined(model)
    for adapter in adapters:
        name, file = split_file(adapter)
        dress(built, name, file)
    return built


def dress(model: Model, name: str, file: str | None = None, **options: Any) -> Adapter:
    """Injects an adapter without weights into a model and returns it.

    Args:
        model: A model from `outline`.
        name: The name of the adapter; empty for the one that reads the file.
        file: The file of the user, for an adapter that reads one; it shapes the layers.
        **options: Arguments for the constructor of the adapter.

    Raises:
        RefinersError: The same as in `load_adapter`; nothing is fetched.
    """
    plugin = find_adapter(name) if name else None
    guard = guarded(plugin, None)
    if plugin is not None:
        check_file(plugin, file)
        variant_for(plugin, model)
    try:
        weights = None
        if file is not None:
            hub = Hub.from_environment(offline=True)
            joined = with_file(plugin, file, hub, guard=guard, answers=options)
            options = constructor_options(joined, options)
            plugin = located(joined)
            variant_for(plugin, model)
            weights = WeightsOf(plugin, True, guard)
        assert plugin is not None, "an argument is a name or a file"
        if weights is None and _states_structure(plugin, model):
            weights = WeightsOf(plugin, True, guard)
        adapter = build_adapter(plugin, weights, options)
        adapter.preprocessors = PreprocessorsOf(plugin, True, None)
        introduce(adapter, plugin, options)
        if weights is None:
            advice = advice_for(plugin.spec, variant_for(plugin, model))
            adapter.advice = advice or adapter.advice
        return adapter.inject(model)
    except OfflineError as error:
        text = f"{name}={file}" if name and file else name or file
        error.hint = f"Run {quoted('refiners', 'fetch', text)} first."
        raise


def _states_structure(plugin: Installed[AdapterSpec], model: Model) -> bool:
    """Whether a package has the files of an adapter whose configuration states its structure."""
    files = variant_for(plugin, model).files
    schemes = {plugin.spec.weights[name].scheme for name in files.values()}
    return "config" in files and schemes == {"pkg"}


def _outlined(model: str) -> Model:
    if is_local(model):
        return outline_local(Path(model))
    plugin = find_model(model)
    guarded(plugin, None)
    return build_model(plugin, None, device="meta")
