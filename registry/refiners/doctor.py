"""Looks for what is wrong with an installation, and says who is at fault and what removes it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from refiners.catalog import listed, shipped
from refiners.choose.compatibility import check_api
from refiners.choose.policy import Guard
from refiners.errors import CatalogError, RefinersError
from refiners.host.shell import quoted
from refiners.installed import inventory as installed
from refiners.installed.distribution import Owner, name_on_disk, owner_of
from refiners.installed.inventory import (
    ADAPTERS,
    MODELS,
    UNKNOWN,
    Installed,
    Inventory,
    package_file,
    scan,
)
from refiners.installed.unreadable import garbled
from refiners.manifest.schema import WeightsFile
from refiners_core import API_VERSION


class Problem(NamedTuple):
    """Something that is wrong, who is at fault, and the command that ends it."""

    kind: str
    dist: str
    what: str
    command: str


def examine(*, is_probing: bool = True) -> tuple[Problem, ...]:
    """Looks at everything that is installed; never raises on account of a plugin.

    Args:
        is_probing: Whether plugins are imported too, in a process of their own.
    """
    inventory = scan()
    problems = [*_broken(inventory), *_stale(), *_duplicates(inventory), *_misfits(inventory)]
    problems += [*_files(inventory), *_rules(inventory), *_catalog(), *_foreign(inventory)]
    problems += _leftovers()
    if is_probing:
        problems += _imports()
    return tuple(dict.fromkeys(problems))


def _broken(inventory: Inventory) -> Iterator[Problem]:
    for one in inventory.broken:
        yield Problem("manifest", one.dist, f"{one.name}: {one.error}", _removal(one.dist))


def _stale() -> Iterator[Problem]:
    """Yields distributions of ours that left several sets of metadata on the import path."""
    copies: dict[str, list[Any]] = {}
    ours: set[str] = set()
    for dist in installed.distributions():
        text = dist.read_text("entry_points.txt") or ""
        is_ours = ADAPTERS in text or MODELS in text
        name = name_on_disk(dist) or ((owner_of(dist) or Owner("", "")).name if is_ours else "")
        copies.setdefault(name, []).append(dist)
        if is_ours:
            ours.add(name)
    for name in sorted(ours - {""}):
        owners = [owner for dist in copies[name] if (owner := owner_of(dist)) is not None]
        versions = [owner.version for owner in owners]
        if len({*versions}) > 1:  # an editable installation has the same version twice
            what = f"metadata of {len(versions)} installations: {', '.join(versions)}"
            again = f"pip uninstall -y {name} && pip install --force-reinstall {name}"
            yield Problem("stale metadata", name, what, again)


def _duplicates(inventory: Inventory) -> Iterator[Problem]:
    for found in (inventory.adapters, inventory.models):
        both: tuple[Installed[Any], ...] = found
        owners: dict[str, list[Installed[Any]]] = {}
        for one in both:
            owners.setdefault(one.name, []).append(one)
        published = _published()
        for name, several in owners.items():
            if len(several) > 1:
                ids = ", ".join(one.id for one in several)
                # who is not the published owner of a name is the one to look at first
                extra = [one for one in several if one.dist != published.get(name)] or several
                what = f"{name!r} is provided by {len(several)} packages: {ids}; use the long name"
                yield Problem("duplicate", extra[-1].dist, what, _removal(extra[-1].dist))
        for one in both:
            for alias in one.spec.aliases:
                others = [o.id for o in (*owners.get(alias, ()), *_aliased(alias, one, both))]
                if others:
                    what = f"the alias {alias!r} of {one.id} is also {', '.join(others)}"
                    yield Problem("duplicate", one.dist, what, _removal(one.dist))


def _published() -> dict[str, str]:
    """Returns who owns a name; a catalog that was fetched has no say in what to remove."""
    try:
        return {one.name: one.distribution for one in shipped()}
    except CatalogError:  # which is a problem of its own
        return {}


def _catalog() -> Iterator[Problem]:
    try:
        listed()
    except CatalogError as error:
        yield Problem("catalog", "", error.message, error.hint)


def _aliased(
    alias: str, one: Installed[Any], both: tuple[Installed[Any], ...]
) -> list[Installed[Any]]:
    return [other for other in both if other is not one and alias in other.spec.aliases]


def _misfits(inventory: Inventory) -> Iterator[Problem]:
    for one in (*inventory.adapters, *inventory.models):
        if refusal := check_api(one, API_VERSION):
            command = f"pip install -U {one.dist} refiners"
            yield Problem("core API", one.dist, f"{one.name} {refusal.reason}", command)


def _files(inventory: Inventory) -> Iterator[Problem]:
    for one in (*inventory.adapters, *inventory.models):
        weights: Mapping[str, WeightsFile] = one.spec.weights
        for name, file in weights.items():
            if file.scheme != "pkg":
                continue
            package, _, path = file.address.partition("/")
            place = _place(package, path)
            if place is None:
                owner = package.replace("_", "-")
                what = f"the file {name} of {one.name} is not there: {file.source}"
                command = f"pip install --force-reinstall {owner}"
                yield Problem("missing file", one.dist, what, command)
            elif not os.access(place, os.R_OK):
                what = f"this user may not read {place}, which {one.name} needs"
                yield Problem("permissions", "", what, quoted("sudo", "chmod", "a+rX", place))


def _place(package: str, path: str) -> Path | None:
    """Returns where a file of a package lies, or the folder that this user may not look into."""
    try:
        folders = installed.package_folders(package)
        if not folders:
            return Path()  # weights of a package that is optional and not installed
        return package_file(package, path)
    except PermissionError as error:
        return Path(error.filename or package)
    except KeyboardInterrupt:
        raise
    except BaseException:  # a broken finder on the import path
        return None


def _rules(inventory: Inventory) -> Iterator[Problem]:
    try:
        guard = Guard.from_environment(is_locked=True)
    except RefinersError as error:
        yield Problem("policy", "", error.message, error.hint)
        return
    for one in (*inventory.adapters, *inventory.models):
        for refusal in guard.package_refusals(one):
            what = f"{refusal.reason} ({refusal.rule})"
            yield Problem("policy", one.dist, what, refusal.hint or _removal(one.dist))
        for said in guard.warnings(one):
            yield Problem("deprecated", one.dist, said, f"pip install -U {one.dist}")


def _foreign(inventory: Inventory) -> Iterator[Problem]:
    """Yields other packages that disturb every lookup of entry points, torch's among them."""
    known = {broken.dist for broken in inventory.broken}
    for one in garbled():
        if one.dist not in known:
            what = f"its entry_points.txt cannot be read: {one.reason}"
            again = f"pip install --force-reinstall {one.dist}"
            command = again if one.dist != UNKNOWN else "pip check"
            yield Problem("entry points", one.dist, what, command)


def _leftovers() -> Iterator[Problem]:
    """Yields what dead processes left in the cache."""
    from filelock import FileLock

    from refiners.hub.client import Hub
    from refiners.hub.download_lock import leftovers

    try:
        cache = Hub.from_environment(offline=True).cache
    except RefinersError:  # settings that cannot be read are a problem of their own
        return
    parts, locks = leftovers(cache, FileLock)
    folders: dict[Path, list[int]] = {}
    for part, size in parts.items():
        folders.setdefault(part.parent, []).append(size)
    for folder, sizes in folders.items():
        names = [part for part in parts if part.parent == folder]
        what = f"{len(names)} incomplete downloads, {sum(sizes)} bytes, that nobody goes on with"
        command = quoted("rm", *names)
        yield Problem("incomplete", "", f"{folder.parent.name}: {what}", command)
    for lock in locks:
        what = f"{lock.name} was left behind by another process; the next download takes it over"
        yield Problem("stale lock", "", what, quoted("rm", lock))


def _imports() -> Iterator[Problem]:
    from refiners.installed.import_check import probe

    for failure in probe():
        kind, dist, what = failure.task
        yield Problem(f"import of {kind}", dist, f"{what}: {failure.error}", _removal(dist))


def _removal(dist: str) -> str:
    return f"pip uninstall {dist}" if dist != UNKNOWN else "pip check"
