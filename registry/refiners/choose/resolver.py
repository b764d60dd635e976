"""Resolves a name among installed and published plugins; a pure function of its arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from refiners.catalog import Listed
from refiners.errors import AmbiguousNameError, NotInstalledError, UnknownNameError
from refiners.installed.distribution import canonical_id
from refiners.installed.inventory import Broken, Installed
from refiners.manifest.schema import Spec

S = TypeVar("S", bound=Spec)
_SHOWN: Final = 12
"""The number of installed names that an error lists."""


def find(
    name: str,
    installed: Sequence[Installed[S]],
    *,
    broken: Sequence[Broken] = (),
    catalog: Sequence[Listed] = (),
    what: str = "adapter",
) -> Installed[S]:
    """Finds the installed plugin that a name stands for.

    Args:
        name: A short name, `controlnet-canny`, or a canonical one,
            `refiners-controlnet:controlnet-canny`. An alias counts if no plugin has it as its name.
        installed: The installed plugins.
        broken: The installed packages that cannot be read.
        catalog: The published plugins.
        what: The kind of plugin, for messages.

    Raises:
        AmbiguousNameError: Several distributions provide the short name.
        NotInstalledError: The plugin is published but not installed; the hint installs it.
        UnknownNameError: The name is unknown; the hint has similar names.
    """
    name = canonical_id(name)
    matches = [plugin for plugin in installed if name in (plugin.name, plugin.id)]
    matches = matches or [plugin for plugin in installed if name in _aliases(plugin)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = " and ".join(sorted(plugin.id for plugin in matches))
        error = AmbiguousNameError(
            f"{name!r} is provided by {len(matches)} distributions: {ids}.",
            hint=f"Use a canonical name: {matches[0].id!r}.",
        )
        error.choices = tuple(plugin.id for plugin in matches)
        raise error
    at_fault = {package.dist: package for package in broken}
    published = [entry.distribution for entry in catalog if name in (entry.name, entry.id)]
    published = published or [entry.distribution for entry in catalog if name in entry.aliases]
    owner, *others = dict.fromkeys(published) or [""]
    if others:
        choices = " or ".join(f"pip install {dist}" for dist in (owner, *others))
        raise NotInstalledError(
            f"the {what} {name!r} is published by {1 + len(others)} distributions.",
            hint=f"Compare them first, then choose: {choices}.",
        )
    if (culprit := at_fault.get(owner)) is not None:
        raise NotInstalledError(
            f"{name!r} belongs to {culprit}.",
            hint=f"Try pip install --force-reinstall {culprit.dist}.",
            dist=culprit.dist,
        )
    if owner:
        raise NotInstalledError(
            f"the {what} {name!r} is published but not installed.",
            hint=f"Run pip install {owner}.",
            dist=owner,
        )
    raise _unknown(name, installed, broken, catalog, what)


def _aliases(plugin: Installed[Any]) -> Iterable[str]:
    aliases: tuple[str, ...] = plugin.spec.aliases
    return (*aliases, *(f"{plugin.dist}:{alias}" for alias in aliases))


def _unknown(
    name: str,
    installed: Iterable[Installed[Any]],
    broken: Iterable[Broken],
    catalog: Iterable[Listed],
    what: str,
) -> UnknownNameError:
    names = sorted({n for plugin in installed for n in (plugin.name, *plugin.spec.aliases)})
    close = get_close_matches(name, sorted({*names, *(entry.name for entry in catalog)}), n=3)
    if close:
        hint = f"Did you mean {' or '.join(map(repr, close))}?"
    else:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        hint = f"Installed: {', '.join(names[:_SHOWN]) or 'none'}{more}. Run refiners list."
    culprits = "; ".join(map(str, broken))
    unread = f" Some packages could not be read: {culprits}." if culprits else ""
    return UnknownNameError(f"no {what} has the name {name!r}.{unread}", hint=hint)
