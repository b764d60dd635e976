"""From a name to what is installed under it: a pure function of what was read before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from refiners.catalog import Listed
from refiners.errors import AmbiguousNameError, NotInstalledError, UnknownNameError
from refiners.installed.distribution import canonical_id
from refiners.installed.inventory import Broken, Installed
from refiners.manifest.schema import AdapterSpec, ModelSpec

S = TypeVar("S", AdapterSpec, ModelSpec)


def find(
    name: str,
    installed: Sequence[Installed[S]],
    *,
    broken: Sequence[Broken] = (),
    catalog: Sequence[Listed] = (),
    what: str = "adapter",
) -> Installed[S]:
    """Finds what a name stands for.

    Args:
        name: Short, `controlnet-canny`, or canonical, `refiners-controlnet:controlnet-canny`. An
            alias leads to its adapter where nothing has it as its own name.
        installed: What is installed.
        broken: What is installed and cannot be read.
        catalog: What is published.
        what: The word for it in messages.

    Raises:
        AmbiguousNameError: Several distributions provide the short name.
        NotInstalledError: It is published; the hint installs it.
        UnknownNameError: Nobody knows it; the hint has the names that come close.
    """
    name = canonical_id(name)
    found = [one for one in installed if name in (one.name, one.id)]
    found = found or [one for one in installed if name in _aliases(one)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = " and ".join(sorted(one.id for one in found))
        raise AmbiguousNameError(
            f"{name!r} is provided by {len(found)} distributions: {ids}.",
            hint=f"Say which: {found[0].id!r}.",
        )
    at_fault = {one.dist: one for one in broken}
    published = [one.distribution for one in catalog if name in (one.name, one.id)]
    published = published or [one.distribution for one in catalog if name in one.aliases]
    owner, *others = dict.fromkeys(published) or [""]
    if others:
        choices = " or ".join(f"pip install {dist}" for dist in (owner, *others))
        raise NotInstalledError(
            f"the {what} {name!r} is published by {1 + len(others)} distributions.",
            hint=f"Look at them first, then choose: {choices}.",
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


def _aliases(one: Installed[Any]) -> Iterable[str]:
    aliases: tuple[str, ...] = one.spec.aliases
    return (*aliases, *(f"{one.dist}:{alias}" for alias in aliases))


def _unknown(
    name: str,
    installed: Iterable[Installed[Any]],
    broken: Iterable[Broken],
    catalog: Iterable[Listed],
    what: str,
) -> UnknownNameError:
    here = sorted({name for one in installed for name in (one.name, *one.spec.aliases)})
    close = get_close_matches(name, sorted({*here, *(one.name for one in catalog)}), n=3)
    if close:
        hint = f"Did you mean {' or '.join(map(repr, close))}?"
    else:
        hint = f"Installed: {', '.join(here) or 'none'}. Run refiners list."
    culprits = "; ".join(map(str, broken))
    unread = f" Some packages could not be read: {culprits}." if culprits else ""
    return UnknownNameError(f"there is no {what} called {name!r}.{unread}", hint=hint)
