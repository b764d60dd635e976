"""What other packages may be told of, and may offer, without being asked by name (pluggy).

A package announces its hook module under the entry-point group `refiners.plugins`. Each hook takes
one event object, so that events can grow without breaking anybody.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, DistributionFinder, EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pluggy

if TYPE_CHECKING:
    from refiners_core.surgery.adapter import Adapter
    from refiners_core.tree.chain import Chain

__all__ = ["GROUP", "Hooks", "Surgery", "WeightRequest", "hookimpl"]

GROUP: Final = "refiners.plugins"
hookspec: Final = pluggy.HookspecMarker("refiners")
hookimpl: Final = pluggy.HookimplMarker("refiners")
"""Marks a function of a hook module as one of the hooks below."""


@dataclass(frozen=True)
class Surgery:
    """An adapter is about to be put on or taken off a tree, or has just been."""

    adapter: Adapter
    tree: Chain


@dataclass(frozen=True)
class WeightRequest:
    """A manifest names weights by a source whose scheme the registry does not know itself."""

    source: str
    """The whole source, such as `s3:bucket/folder`."""
    file: str
    """The file within it."""
    revision: str
    """The pinned revision, or `unknown`."""
    offline: bool
    """Whether the network must not be used."""


@dataclass(frozen=True)
class BrokenHooks:
    """A hook module that could not be loaded, and why; nothing else suffers from it."""

    name: str
    dist: str
    error: BaseException


class Hooks:
    """The hooks there are."""

    @hookspec
    def before_inject(self, event: Surgery) -> None:
        """Is told before anything changes; an exception stops the inject and leaves the tree."""

    @hookspec
    def after_inject(self, event: Surgery) -> None:
        """Is told when the tree wears the adapter."""

    @hookspec
    def before_eject(self, event: Surgery) -> None:
        """Is told before anything changes; an exception stops the eject and leaves the tree."""

    @hookspec
    def after_eject(self, event: Surgery) -> None:
        """Is told when the tree no longer wears the adapter."""

    @hookspec(firstresult=True)
    def fetch_weights(self, event: WeightRequest) -> Path | None:
        """Returns where a file lies now, or None to leave it to another; the bytes are verified."""


@cache
def manager() -> pluggy.PluginManager:
    """Returns the one manager of this process; installed hook modules join by `load_installed`."""
    plugins = pluggy.PluginManager("refiners")
    plugins.add_hookspecs(Hooks)
    return plugins


def announced() -> Iterator[EntryPoint]:
    """Yields the hook modules that installed packages announce, whatever else is installed.

    importlib's own lookup over all packages stops at the first file of entry points that is
    garbled, be it of a package that has nothing to do with hooks: here that one has none.
    """
    seen: set[str] = set()
    for dist in _distributions():
        try:
            text = dist.read_text("entry_points.txt") or ""
            name = dist.name if GROUP in text else ""
            points = dist.entry_points if name and name not in seen else ()
        except Exception:  # nothing of it can be loaded
            continue
        seen.add(name)
        yield from (point for point in points if point.group == GROUP)


def _distributions() -> Iterator[Distribution]:
    """Yields what each finder finds, until that one fails."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_distributions", None)
        try:
            yield from find(DistributionFinder.Context()) if find else ()
        except Exception:
            continue


def load_installed(
    find: Callable[[], Iterable[EntryPoint]] = announced,
) -> list[BrokenHooks]:
    """Loads every installed hook module that is not loaded yet, each alone.

    pluggy's own loader stops at the first module that fails; here the others still load, and even a
    module that ends the process (`sys.exit` at import) is only one more that is broken.

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
            module = point.load()
            manager().register(module, name)
            manager().check_pending()
        except KeyboardInterrupt:  # of whoever waits for the imports
            raise
        except BaseException as error:
            if manager().has_plugin(name):
                manager().unregister(name=name)
            broken.append(BrokenHooks(point.name, dist, error))
    return broken
