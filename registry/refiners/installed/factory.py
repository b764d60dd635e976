"""Imports and calls the factory of a manifest; failures of plugin code become `PluginError`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refiners.errors import OptionError, PluginError, RefinersError
from refiners.host.machine import is_memory, machine_fault
from refiners.host.text import reason_of
from refiners.installed.inventory import Installed
from refiners.installed.unreadable import let_torch_load
from refiners.manifest.schema import AdapterSpec, FamilySpec, ModelSpec, PreprocessorSpec
from refiners_core.argument_names import suggestion

if TYPE_CHECKING:
    from refiners_core import Adapter, Chain, Model, Preprocessor, Source


def build_model(model: Installed[ModelSpec], source: Source | None, **options: Any) -> Model:
    """Builds a base model.

    Args:
        model: The installed model.
        source: The verified files; None for the structure without weights.
        **options: `device` and `dtype`.

    Raises:
        PluginError: The factory failed, or returned another type.
    """
    let_torch_load()
    from refiners_core import Model

    factory = import_reference(model.spec.factory, model.dist)
    return _built(model, lambda: factory(source, **options), Model)


def open_published(family: Installed[FamilySpec], path: Path, **options: Any) -> Model:
    """Opens a model from its folder or file.

    Args:
        family: The family that recognises it.
        path: The folder or the file.
        **options: `device` and `dtype`.

    Raises:
        ModelError, WeightsError: The files are unreadable, or not those of such a model.
        PluginError: The factory failed, or returned another type.
    """
    let_torch_load()
    from refiners_core import Model

    factory = import_reference(family.spec.factory, family.dist)
    return _built(family, lambda: factory(path, **options), Model)


def check_configurations(family: Installed[FamilySpec], folder: Path) -> None:
    """Checks a folder that has only configurations yet, so that no weights are fetched in vain.

    Raises:
        ModelError: The configurations are of an unsupported model.
        PluginError: The check failed.
    """
    if family.spec.checker is not None:
        checker = import_reference(family.spec.checker, family.dist)
        _built(family, lambda: checker(folder), object)


def build_adapter(
    adapter: Installed[AdapterSpec],
    weights: Callable[[Chain], Source] | None,
    options: dict[str, Any],
) -> Adapter:
    """Builds an adapter, which is not worn yet.

    Args:
        adapter: The installed adapter.
        weights: Chooses and fetches its files at the first inject; None for the structure without
            weights.
        options: The arguments of the caller for the constructor.

    Raises:
        OptionError: The constructor does not take an option.
        PluginError: The factory failed, or returned another type.
    """
    let_torch_load()
    from refiners_core import Adapter

    factory = import_reference(adapter.spec.factory, adapter.dist)
    given = {"name": adapter.name, "weights": weights}
    accepted = _keywords(factory)
    if refused := sorted(given.keys() - accepted):
        error = TypeError(f"it takes no {' and no '.join(refused)}")
        raise _failed(f"building {adapter.name}", error, adapter.dist)
    _check_options(adapter, factory, (), given, options)
    return _built(adapter, lambda: factory(**given, **options), Adapter)


def check_adapter_options(adapter: Installed[AdapterSpec], options: Mapping[str, Any]) -> None:
    """Checks the options for the constructor of an adapter; imports its code, and builds nothing.

    Raises:
        OptionError: The constructor does not take an option.
        PluginError: The import failed.
    """
    factory = import_reference(adapter.spec.factory, adapter.dist)
    _check_options(adapter, factory, (), {"name": adapter.name, "weights": None}, options)


def build_preprocessor(
    plugin: Installed[PreprocessorSpec], weights: Callable[[], Source], options: dict[str, Any]
) -> Preprocessor:
    """Returns the function of a preprocessor; one with weights is built from them.

    Args:
        plugin: The installed preprocessor.
        weights: Fetches its files.
        options: The keyword arguments of the caller.

    Raises:
        OptionError: The preprocessor does not take an option.
        PluginError: The import or the factory failed.
    """
    let_torch_load()
    factory = import_reference(plugin.spec.factory, plugin.dist)
    if plugin.spec.weights:
        given = {"weights": weights}
        _check_options(plugin, factory, (), given, options)
        return _built(plugin, lambda: factory(**given, **options), Callable)
    if not options:
        return factory
    _check_options(plugin, factory, (None,), {"size": None}, options)
    return partial(factory, **options)


def _check_options(
    plugin: Installed[Any],
    factory: Callable[..., Any],
    first: tuple[Any, ...],
    given: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Raises an `OptionError` if a factory does not take the options of the caller.

    Args:
        plugin: The plugin, for messages.
        factory: The factory.
        first: The positional arguments of its call.
        given: The keyword arguments of the registry.
        options: The keyword arguments of the caller.
    """
    accepted = _keywords(factory) - given.keys()
    unknown = sorted(options.keys() - accepted)
    try:
        if unknown:
            raise TypeError(f"it takes no {' and no '.join(unknown)}")
        inspect.signature(factory).bind(*first, **given, **options)
    except TypeError as error:
        missing = [] if unknown else _required(factory) - given.keys() - options.keys()
        raise OptionError(
            f"{plugin.name} cannot be built with {', '.join(options) or 'no options'}: {error}.",
            hint=f"Pass {', '.join(f'{name}=...' for name in sorted(missing))} as well."
            if missing
            else _meant(unknown, accepted),
            dist=plugin.dist,
        ) from error


def import_reference(reference: str, dist: str | None) -> Callable[..., Any]:
    """Imports `package.module:attribute` of a plugin.

    Raises:
        PluginError: The import failed, or the module lacks the function or class.
    """
    let_torch_load()
    module, _, attribute = reference.partition(":")
    try:
        factory = getattr(import_module(module), attribute)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # including SystemExit of a plugin
        _pass_local(error, f"importing {reference}")
        raise _failed(f"importing {reference}", error, dist) from error
    if not callable(factory):
        raise PluginError(f"{reference} is not callable.", hint="Ask its author.", dist=dist)
    return factory


def _keywords(factory: Callable[..., Any]) -> set[str]:
    """Returns the keywords of a factory, including those that it passes on to its base class."""
    makers: list[Callable[..., Any]] = [factory]
    if isinstance(factory, type):
        makers = [vars(kind)["__init__"] for kind in factory.__mro__ if "__init__" in vars(kind)]
    names: set[str] = set()
    for maker in makers:
        parameters = inspect.signature(maker).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names - {"self"}


def _required(factory: Callable[..., Any]) -> set[str]:
    """Returns the keywords without which a factory cannot be called."""
    parameters = inspect.signature(factory).parameters.values()
    return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty}


def _meant(unknown: Iterable[str], known: Collection[str]) -> str:
    """Returns the hint for options that a constructor does not take."""
    options = f"Its options: {', '.join(sorted(known)) or 'none'}."
    meant = dict.fromkeys(name for option in unknown if (name := suggestion(option, known)))
    return f"Did you mean {' and '.join(meant)}? {options}" if meant else options


def _built(plugin: Installed[Any], make: Callable[[], Any], kind: Any) -> Any:
    try:
        built = make()
    except (RefinersError, KeyboardInterrupt):
        raise
    except BaseException as error:
        _pass_local(error, f"building {plugin.name}")
        raise _failed(f"building {plugin.name}", error, plugin.dist) from error
    if not isinstance(built, kind):
        raise PluginError(
            f"{plugin.spec.factory} returned {type(built).__name__}, not {kind.__name__}.",
            hint="Ask its author.",
            dist=plugin.dist,
        )
    return built


def _pass_local(error: BaseException, doing: str) -> None:
    """Raises errors that are the fault of this machine, not of the plugin.

    Raises:
        MachineError: The machine lacks an accelerator, disk space or a permission.
        BaseException: Memory ran out; the error of the plugin is raised unchanged.
    """
    if is_memory(error):
        raise error
    # a missing file is the fault of the package, which should contain it
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError | UnicodeError):
        return
    place = getattr(error, "filename", None) or "a file"
    if (fault := machine_fault(error, doing, place=str(place))) is not None:
        raise fault from error


def _failed(what: str, error: BaseException, dist: str | None) -> PluginError:
    return PluginError(
        f"{what} failed: {type(error).__name__}: {reason_of(error)}.",
        hint=f"Try pip install -U --force-reinstall {dist}, or ask its author.",
        dist=dist,
    )
