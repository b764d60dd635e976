"""The hooks that other packages can implement, found by entry point (pluggy).

A package declares its hook module in the entry-point group `refiners.plugins`. Each hook takes one
event object, so that events can gain fields without breaking hooks.
"""

from __future__ import annotations

import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import Distribution, DistributionFinder, EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import pluggy

from refiners_core.errors import HookError, Notice

if TYPE_CHECKING:
    from refiners_core.surgery.wearable import Wearable
    from refiners_core.tree.chain import Chain

__all__ = ["GROUP", "Hooks", "Surgery", "WeightRequest", "hookimpl"]

GROUP: Final = "refiners.plugins"
hookspec: Final = pluggy.HookspecMarker("refiners")
hookimpl: Final = pluggy.HookimplMarker("refiners")
"""Marks a function of a hook module as an implementation of a hook below."""


@dataclass(frozen=True)
class Surgery:
    """The event of injecting an adapter into a tree or ejecting it."""

    adapter: Wearable
    """The adapter; for more than its key, ask `isinstance(event.adapter, Adapter)`."""
    tree: Chain
    """The tree that it is injected into or ejected from."""


@dataclass(frozen=True)
class WeightRequest:
    """A request for weights whose source has a scheme that the registry does not know."""

    source: str
    """The whole source, such as `s3:bucket/folder`."""
    file: str
    """The file within the source."""
    revision: str
    """The pinned revision, or `unknown`."""
    offline: bool
    """Whether the network is off limits."""


@dataclass(frozen=True)
class BrokenHooks:
    """A hook module that could not be loaded, and the error; other modules load regardless."""

    name: str
    dist: str
    error: BaseException


class Hooks:
    """The hooks that a hook module can implement."""

    @hookspec
    def before_inject(self, event: Surgery) -> None:
        """Runs before an inject; an exception cancels the inject and leaves the tree unchanged."""

    @hookspec
    def after_inject(self, event: Surgery) -> None:
        """Runs once the tree wears the adapter; an exception undoes the inject."""

    @hookspec
    def before_eject(self, event: Surgery) -> None:
        """Runs before an eject; an exception cancels the eject and leaves the tree unchanged."""

    @hookspec
    def after_eject(self, event: Surgery) -> None:
        """Runs once the tree no longer wears the adapter; an exception undoes the eject."""

    @hookspec(firstresult=True)
    def fetch_weights(self, event: WeightRequest) -> Path | None:
        """Returns the local path of a file, or None to leave the request to other hooks; the
        registry verifies the bytes."""


@cache
def manager() -> pluggy.PluginManager:
    """Returns the plugin manager of this process; `load_installed` registers hook modules."""
    plugins = pluggy.PluginManager("refiners")
    plugins.add_hookspecs(Hooks)
    return plugins


def call(hook: str, event: object) -> Any:
    """Calls a hook of all loaded modules; notes on an exception which package raised it.

    Args:
        hook: The name of the hook.
        event: Its event.

    Returns:
        The result of the hook: for one that returns the first result, that result.
    """
    try:
        return getattr(manager().hook, hook)(event=event)
    except BaseException as error:
        if name := culprit(error):
            remedy = f"pip uninstall {name.partition(':')[0]}"
            error.add_note(f"Raised by the hook {hook} of {name}. To do without it: {remedy}")
        raise


def culprit(error: BaseException) -> str:
    """Returns the name of the hook module that raised an exception; empty if none did."""
    owners = {
        getattr(implementation.function, "__code__", None): implementation.plugin_name
        for _, plugin in manager().list_name_plugin()
        for caller in manager().get_hookcallers(plugin) or ()
        for implementation in caller.get_hookimpls()
    }
    frames = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
    return next((owners[code] for code in frames if code in owners), "")


def register(module: object, name: str, dist: str) -> None:
    """Registers the hooks of a module whole, or not at all.

    An implementation may leave out arguments, so hooks can gain some. A hook that does not exist is
    skipped with a notice: a later or an earlier version of the core has it.

    Args:
        module: The module, or another object with hooks as attributes.
        name: The name under which the hooks are registered.
        dist: The distribution that has the module, for messages.

    Raises:
        HookError: A hook takes an argument that its specification does not have.
    """
    marked = _marked(module)
    specs = {hook: _arguments(getattr(Hooks, hook)) for hook in vars(Hooks) if hook[0] != "_"}
    for hook, function in marked.items():
        if hook not in specs:
            continue
        for argument in _arguments(function):
            if argument not in specs[hook]:
                takes = ", ".join(specs[hook]) or "no arguments"
                raise HookError(
                    f"the hook {hook} of {dist} takes the argument {argument!r}, and {hook} passes "
                    f"{takes}.",
                    hint=f"Remove {argument!r}, or run pip install -U {dist} refiners-core.",
                    dist=dist,
                )
    for hook in marked:
        if hook not in specs:
            close = get_close_matches(hook, specs, n=1)
            guess = f"did you mean {close[0]}?" if close else f"known: {', '.join(specs)}."
            warnings.warn(
                f"{dist} has a hook {hook!r}, which does not exist and is not called; {guess}",
                Notice,
                stacklevel=3,
            )
    manager().register(module, name)


def _marked(module: object) -> dict[str, Callable[..., object]]:
    """Returns the functions of a module that `hookimpl` marks, by the hook that they implement."""
    functions: dict[str, Callable[..., object]] = {}
    for name in dir(module):
        function = getattr(module, name, None)
        options = getattr(function, "refiners_impl", None) if inspect.isroutine(function) else None
        if isinstance(options, dict):
            hook = cast("dict[str, str | None]", options).get("specname") or name
            functions[hook] = cast("Callable[..., object]", function)
    return functions


def _arguments(function: Callable[..., object]) -> tuple[str, ...]:
    """Returns the arguments that pluggy passes by name: those without a default."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(
        parameter.name
        for parameter in parameters
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        and parameter.default is parameter.empty
        and parameter.name != "self"
    )


def announced() -> Iterator[EntryPoint]:
    """Yields the hook modules that installed packages declare.

    importlib's lookup over all packages fails at the first malformed entry-point file, even in a
    package without hooks; here such a package is skipped.
    """
    seen: set[str] = set()
    for dist in _distributions():
        try:
            text = dist.read_text("entry_points.txt") or ""
            name = dist.name if GROUP in text else ""
            points = dist.entry_points if name and name not in seen else ()
        except Exception:  # a malformed package, none of which can be loaded
            continue
        seen.add(name)
        yield from (point for point in points if point.group == GROUP)


def _distributions() -> Iterator[Distribution]:
    """Yields the distributions of each finder, up to the first failure of that finder."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_distributions", None)
        try:
            yield from find(DistributionFinder.Context()) if find else ()
        except Exception:
            continue


def load_installed(
    find: Callable[[], Iterable[EntryPoint]] = announced,
) -> list[BrokenHooks]:
    """Loads every installed hook module that is not loaded yet, each independently.

    pluggy's loader stops at the first module that fails. Here the others still load, and a module
    that calls `sys.exit` at import only counts as broken.

    Args:
        find: Yields the entry points of hook modules.

    Returns:
        The modules that could not be loaded.
    """
    broken: list[BrokenHooks] = []
    for point in find():
        dist = point.dist.name if point.dist else "unknown"
        name = f"{dist}:{point.name}"
        if manager().has_plugin(name):
            continue
        try:
            register(point.load(), name, dist)
        except KeyboardInterrupt:  # from the user, not from the module
            raise
        except BaseException as error:
            broken.append(BrokenHooks(point.name, dist, error))
    return broken
