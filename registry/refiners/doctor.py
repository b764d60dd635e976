"""Finds the problems of an installation: the package at fault, and the command that fixes each."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from refiners.catalog import listed, shipped
from refiners.choose.compatibility import check_api
from refiners.choose.policy import Guard
from refiners.choose.publisher_review import publisher_changes_here
from refiners.errors import CatalogError, RefinersError
from refiners.host.shell import quoted
from refiners.installed import inventory as installed
from refiners.installed import namesake
from refiners.installed.command import COMMANDS, package_commands
from refiners.installed.distribution import (
    DISTRIBUTION,
    Owner,
    distribution_of,
    name_on_disk,
    owner_of,
)
from refiners.installed.inventory import (
    UNKNOWN,
    Installed,
    Inventory,
    is_plugin,
    package_file,
    scan,
)
from refiners.installed.unreadable import garbled
from refiners.manifest.schema import WeightsFile
from refiners_core import API_VERSION


class Problem(NamedTuple):
    """A problem, the distribution at fault, and the command that fixes it."""

    kind: str
    dist: str
    what: str
    command: str


def examine(*, is_probing: bool = True, reserved: Collection[str] = ()) -> tuple[Problem, ...]:
    """Examines everything that is installed; faults of plugins never raise.

    Args:
        is_probing: Whether to import plugins as well, in a separate process.
        reserved: The names of commands that no package may take.
    """
    inventory = scan()
    problems = [
        *_namesake(),
        *_broken(inventory),
        *_stale(),
        *_duplicates(inventory),
        *_misfits(inventory),
        *_commands(inventory, reserved),
        *_publishers(inventory),
        *_requirements(),
    ]
    problems += [*_files(inventory), *_rules(inventory), *_catalog(), *_foreign(inventory)]
    problems += _leftovers()
    if is_probing:
        problems += _imports()
    return tuple(dict.fromkeys(problems))


def _namesake() -> Iterator[Problem]:
    """Yields the traces of the other distribution whose import name is `refiners`."""
    for dist in installed.distributions():
        if name_on_disk(dist) == namesake.NAMESAKE:
            version = (owner_of(dist) or Owner("", "unknown")).version
            what = (
                f"version {version} of another project has the import name of {DISTRIBUTION}, and "
                f"the two overwrite each other's files"
            )
            yield Problem("other distribution", namesake.NAMESAKE, what, namesake.REMOVE)
            return
    for what, command in namesake.faults():
        yield Problem("other distribution", namesake.NAMESAKE, what, command)


def _broken(inventory: Inventory) -> Iterator[Problem]:
    for broken in inventory.broken:
        what = f"{broken.name}: {broken.error}"
        yield Problem("manifest", broken.dist, what, _removal(broken.dist))


def _commands(inventory: Inventory, reserved: Collection[str]) -> Iterator[Problem]:
    """Yields the commands of packages that the shell refuses."""
    declared = package_commands(reserved)
    known = {broken.dist for broken in inventory.broken}
    known |= {package.dist for package in garbled()}
    for broken in declared.broken:
        if broken.dist in known:
            continue
        what = f"{broken.name}: {broken.error}"
        yield Problem("command", broken.dist, what, _removal(broken.dist))
    for name, commands in declared.namesakes.items():
        ids = ", ".join(command.id for command in commands)
        what = f"the command {name!r} is in {len(commands)} packages: {ids}; use the long name"
        yield Problem("duplicate", commands[-1].dist, what, _removal(commands[-1].dist))


def _stale() -> Iterator[Problem]:
    """Yields plugins with several sets of metadata on the import path."""
    copies: dict[str, list[Any]] = {}
    ours: set[str] = set()
    for dist in installed.distributions():
        text = dist.read_text("entry_points.txt") or ""
        is_ours = is_plugin(text) or COMMANDS in text
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
    kinds: tuple[tuple[Installed[Any], ...], ...] = (
        inventory.adapters,
        inventory.models,
        inventory.preprocessors,
    )
    for plugins in kinds:
        owners: dict[str, list[Installed[Any]]] = {}
        for plugin in plugins:
            owners.setdefault(plugin.name, []).append(plugin)
        published = _published()
        for name, several in owners.items():
            if len(several) > 1:
                ids = ", ".join(plugin.id for plugin in several)
                # first suspect whoever is not the published owner of the name
                strangers = [plugin for plugin in several if plugin.dist != published.get(name)]
                suspect = (strangers or several)[-1].dist
                what = f"{name!r} is provided by {len(several)} packages: {ids}; use the long name"
                yield Problem("duplicate", suspect, what, _removal(suspect))
        for plugin in plugins:
            for alias in plugin.spec.aliases:
                others = [o.id for o in (*owners.get(alias, ()), *_aliased(alias, plugin, plugins))]
                if others:
                    what = f"the alias {alias!r} of {plugin.id} is also {', '.join(others)}"
                    yield Problem("duplicate", plugin.dist, what, _removal(plugin.dist))


def _published() -> dict[str, str]:
    """Returns the owner of each name; only the shipped catalog decides what to remove."""
    try:
        return {entry.name: entry.distribution for entry in shipped()}
    except CatalogError:  # reported by `_catalog`
        return {}


def _catalog() -> Iterator[Problem]:
    try:
        listed()
    except CatalogError as error:
        yield Problem("catalog", "", error.message, error.hint)


def _aliased(
    alias: str, plugin: Installed[Any], plugins: tuple[Installed[Any], ...]
) -> list[Installed[Any]]:
    return [other for other in plugins if other is not plugin and alias in other.spec.aliases]


def _misfits(inventory: Inventory) -> Iterator[Problem]:
    for plugin in inventory.plugins:
        if refusal := check_api(plugin, API_VERSION):
            command = f"pip install -U {plugin.dist} {DISTRIBUTION}"
            yield Problem("core API", plugin.dist, f"{plugin.name} {refusal.reason}", command)


def _publishers(inventory: Inventory) -> Iterator[Problem]:
    """Yields the packages whose publisher has changed; loading or locking them accepts it."""
    for change in publisher_changes_here(inventory.plugins):
        yield Problem("publisher", change.dist, str(change), change.way_back)


def _requirements() -> Iterator[Problem]:
    """Yields the unmet requirements of plugins, each with the one that it conflicts with."""
    from refiners.installed.dependency import unmet_requirements

    for unmet in unmet_requirements():
        name = unmet.need.requirement.name
        state = f"{unmet.installed} is installed" if unmet.installed else f"{name} is not installed"
        if unmet.rival is None:
            command = quoted("pip", "install", unmet.together)
            yield Problem("requirement", unmet.need.plugin, f"{unmet.need}; {state}", command)
            continue
        what = f"{unmet.need}, and {unmet.rival}: no {name} meets both; {state}"
        pair = dict.fromkeys((unmet.need.plugin, unmet.rival.plugin))
        command = quoted("pip", "install", "-U", *pair)
        yield Problem("conflict", unmet.need.plugin, what, command)


def _files(inventory: Inventory) -> Iterator[Problem]:
    for plugin in inventory.plugins:
        weights: Mapping[str, WeightsFile] = plugin.spec.weights
        for name, file in weights.items():
            if file.scheme != "pkg":
                continue
            package, relative = file.package_path
            path = _packaged(package, relative)
            if path is None:
                what = f"the file {name} of {plugin.name} is missing: {file.source}"
                command = f"pip install --force-reinstall {distribution_of(package)}"
                yield Problem("missing file", plugin.dist, what, command)
            elif not os.access(path, os.R_OK):
                what = f"this user may not read {path}, which {plugin.name} needs"
                yield Problem("permissions", "", what, quoted("sudo", "chmod", "a+rX", path))


def _packaged(package: str, relative: str) -> Path | None:
    """Returns the path of a file in a package, or the folder that this user may not read."""
    try:
        folders = installed.package_folders(package)
        if not folders:
            return Path()  # the weights of an optional package that is not installed
        return package_file(package, relative)
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
    for plugin in inventory.plugins:
        for refusal in guard.package_refusals(plugin):
            what = f"{refusal.reason} ({refusal.rule})"
            yield Problem("policy", plugin.dist, what, refusal.hint or _removal(plugin.dist))
        for message in guard.warnings(plugin):
            yield Problem("deprecated", plugin.dist, message, f"pip install -U {plugin.dist}")


def _foreign(inventory: Inventory) -> Iterator[Problem]:
    """Yields other packages that break every lookup of entry points, including that of torch."""
    known = {broken.dist for broken in inventory.broken}
    for package in garbled():
        if package.dist not in known:
            what = f"its entry_points.txt cannot be read: {package.reason}"
            again = f"pip install --force-reinstall {package.dist}"
            command = again if package.dist != UNKNOWN else "pip check"
            yield Problem("entry points", package.dist, what, command)


def _leftovers() -> Iterator[Problem]:
    """Yields the files that dead processes left in the cache."""
    from filelock import FileLock

    from refiners.hub.client import Hub
    from refiners.hub.download_lock import leftovers

    try:
        cache = Hub.from_environment(offline=True).cache
    except RefinersError:  # a wrong setting is the error of the command that reads it
        return
    parts, locks = leftovers(cache, FileLock)
    folders: dict[Path, list[int]] = {}
    for part, size in parts.items():
        folders.setdefault(part.parent, []).append(size)
    for folder, sizes in folders.items():
        names = [part for part in parts if part.parent == folder]
        what = f"{len(names)} incomplete downloads, {sum(sizes)} bytes, that no process continues"
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
