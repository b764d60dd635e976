"""Writes locks, fetches the files that a lock pins, and verifies the files on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from refiners.choose.lock import (
    Lock,
    LockedFile,
    LockedPlugin,
    differences,
    digest,
    hold,
    read_lock,
    read_lock_or_empty,
    write_lock,
)
from refiners.choose.policy import Guard
from refiners.choose.publisher import identity_of
from refiners.choose.publisher_review import review_publishers
from refiners.choose.requirements import installed_models, need_of, suitable_plugins
from refiners.errors import LockError, MachineError, RefinersError
from refiners.host.exclusive import exclusive
from refiners.host.parallel import together
from refiners.hub.client import Hub
from refiners.hub.receipts import sha256_of
from refiners.installed.distribution import canonical_id
from refiners.installed.inventory import Installed, Inventory, package_file
from refiners.manifest.pattern import LOCAL
from refiners.manifest.schema import UNKNOWN, ModelSpec, WeightsFile, kind_of
from refiners.sources.fetch import announce_terms, fetch_all, fetch_file
from refiners.sources.repository import PREFIX, RepositoryModel, of_locked
from refiners.sources.user_file import WithFile, of_locked_file, split_file

_AT_ONCE: Final = 8
"""The number of concurrent requests to the Hub."""


@dataclass(frozen=True)
class State:
    """The state of one file of a plugin on this machine."""

    plugin: str
    name: str
    file: WeightsFile
    path: Path | None
    state: str
    """`ok`, `missing`, `different`, `unreadable` or `not fetched`."""

    @property
    def is_good(self) -> bool:
        """Whether the file is verified, or need not be on this machine."""
        return self.state in ("ok", "not fetched")


def lock_of(
    plugins: Iterable[Installed[Any]],
    hub: Hub,
    guard: Guard | None = None,
    models: Sequence[Installed[ModelSpec]] = (),
    *,
    must_suit: bool = False,
) -> Lock:
    """Pins the files of some plugins, and asks the Hub for pins that a manifest leaves open.

    Args:
        plugins: Adapters, models and repositories.
        hub: The Hub that has the files.
        guard: The policies and advisories, applied before each request and again to its result.
        models: The models for which files of adapters are pinned; all files if empty.
        must_suit: Whether an adapter without a variant for one of the models is an error.

    Raises:
        NetworkError, IntegrityError: The Hub does not answer, or contradicts a pin.
        PolicyError: A rule refuses a plugin or a file.
        IncompatibleError: An adapter does not suit a model, and `must_suit` is set.
    """
    guard = guard or Guard()
    unique = {(kind_of(plugin.spec), plugin.id): plugin for plugin in plugins}
    needs = {
        key: need_of(plugin, models, guard, must_suit=must_suit) for key, plugin in unique.items()
    }
    open_files = {
        (key, name): file
        for key, plugin in unique.items()
        for name, file in plugin.spec.weights.items()
        if name in needs[key].files
    }
    for key, plugin in unique.items():
        guard.admit(plugin, (file for (of, _), file in open_files.items() if of == key))
    files = together(
        {
            place: partial(_pinned, file, hub, unique[place[0]].dist)
            for place, file in open_files.items()
        },
        _AT_ONCE,
    )
    locked: list[LockedPlugin] = []
    for key, plugin in unique.items():
        pinned = {name: file for (of, name), file in files.items() if of == key}
        guard.admit(plugin, pinned.values())
        locked.append(_locked(plugin, pinned, needs[key].bases))
    return Lock(plugin=tuple(locked))


def renewed(lock: Lock, inventory: Inventory, hub: Hub, guard: Guard, path: Path) -> Lock:
    """Locks again, and writes, the plugins whose installed version differs from the locked one.

    Adapters are locked for the same bases as before. An empty lock is filled with the plugins of
    this machine.

    Raises:
        RefinersError: The same as in `lock_of`.
    """
    locked = {(entry.kind, canonical_id(entry.id)): entry for entry in lock.plugin}
    newer = Lock()
    if not locked:
        models = installed_models(inventory, hub)
        newer = lock_of(suitable_plugins(inventory, models, guard), hub, guard, models)
    for plugin in inventory.plugins:
        entry = locked.get((kind_of(plugin.spec), canonical_id(plugin.id)))
        if entry is not None and any(differences(entry, plugin)):
            models = [m for m in inventory.models if (m.spec.base or m.name) in entry.base]
            newer = updated(newer, lock_of([plugin], hub, guard, models))
    if not newer.plugin:
        return lock
    review_publishers(path, (p for p in inventory.plugins if newer.get(kind_of(p.spec), p.id)))
    return write_into(path, newer)


def updated(lock: Lock, newer: Lock) -> Lock:
    """Returns a lock in which the plugins of a newer one replace or join the old ones."""
    names = {(entry.kind, canonical_id(entry.id)) for entry in newer.plugin}
    kept = tuple(e for e in lock.plugin if (e.kind, canonical_id(e.id)) not in names)
    return Lock(plugin=(*kept, *newer.plugin))


def write_into(path: Path, newer: Lock, read: Callable[[Path], Lock] = read_lock_or_empty) -> Lock:
    """Adds a lock to a lock file that no other process may write meanwhile; returns the result.

    Args:
        path: The lock file; it is created if it does not exist.
        newer: The plugins that replace their namesakes.
        read: Reads the entries that stay.

    Raises:
        LockError, CacheError: The file is damaged, cannot be written, or is held for too long.
    """
    with exclusive(path):
        lock = updated(read(path), newer)
        write_lock(path, lock)
    return lock


def named_by_users(path: Path) -> Lock:
    """Returns the part of a lock that no inventory has: repositories, and adapters with a file.

    An unreadable lock gives an empty one.
    """
    try:
        plugins = read_lock(path).plugin
    except LockError:
        return Lock()
    named = (entry for entry in plugins if entry.id.startswith(PREFIX) or "=" in entry.id)
    return Lock(plugin=tuple(named))


def installed_of(lock: Lock, inventory: Inventory, path: Path) -> tuple[Installed[Any], ...]:
    """Returns the plugins of a lock, with their files pinned as it has them.

    Raises:
        LockError: A plugin is not installed, or differs from the lock; the message lists them all.
    """
    installed = {(kind_of(p.spec), canonical_id(p.id)): p for p in inventory.plugins}
    plugins: list[Installed[Any]] = []
    messages: list[str] = []
    for locked in lock.plugin:
        if locked.id.startswith(PREFIX):
            plugins.append(of_locked(locked, path))
            continue
        id, file = split_file(locked.id)
        plugin = installed.get((locked.kind, canonical_id(id)))
        dist = id.partition(":")[0]
        if plugin is None:
            messages.append(f"{locked.id} is not installed: pip install {dist}=={locked.version}")
            continue
        try:
            if file is not None:
                plugin = of_locked_file(plugin, locked, path)
            plugins.append(hold(plugin, lock, path))
        except LockError as error:
            messages.append(error.message.strip())
    if messages:
        raise LockError(
            f"the packages on this machine differ from {path}:\n" + "\n".join(messages) + "\n",
            hint="Install the locked versions, or lock the installed ones: refiners lock.",
        )
    return tuple(plugins)


def fetch_files(plugins: Sequence[Installed[Any]], hub: Hub, guard: Guard) -> tuple[State, ...]:
    """Fetches and verifies every file of some plugins, after the rules admit all of them.

    Raises:
        RefinersError: A file cannot be fetched as pinned.
    """
    for plugin in plugins:
        guard.admit(plugin, plugin.spec.weights.values())
    states: list[State] = []
    for plugin in plugins:
        weights: Mapping[str, WeightsFile] = plugin.spec.weights
        announce_terms(plugin.id, weights.values())
        paths = fetch_all(weights, hub, dist=plugin.dist) if weights else {}
        states += [
            State(plugin.id, name, file, paths[name], "ok") for name, file in weights.items()
        ]
    return tuple(states)


def examine_files(
    plugins: Sequence[Installed[Any]], hub: Hub, *, deep: bool, must_be_here: bool
) -> tuple[State, ...]:
    """Checks the files of some plugins without network access.

    Args:
        plugins: The plugins.
        hub: The Hub whose cache has the files.
        deep: Whether to hash every byte again; otherwise a receipt is enough.
        must_be_here: Whether a file that was never fetched counts as missing.
    """
    states: list[State] = []
    for plugin in plugins:
        for name, file in plugin.spec.weights.items():
            path, state = _state(file, hub, plugin.dist, deep)
            if state == "missing" and not must_be_here and file.scheme not in ("pkg", LOCAL):
                state = "not fetched"
            states.append(State(plugin.id, name, file, path, state))
    return tuple(states)


def _state(file: WeightsFile, hub: Hub, dist: str, deep: bool) -> tuple[Path | None, str]:
    try:
        path = _place(file, hub)
        wanted = hub.pinned(file).sha256
        if path is None or wanted == UNKNOWN:
            return None, "missing"
        if deep:
            return path, "ok" if sha256_of(path) == wanted else "different"
    except OSError:
        return None, "unreadable"
    try:
        return fetch_file(file, hub, dist=dist), "ok"
    except MachineError:
        return path, "unreadable"
    except RefinersError:
        return path, "different"


def _place(file: WeightsFile, hub: Hub) -> Path | None:
    """Returns the path of a file, verified or not; None if it is not on this machine."""
    if file.scheme == "pkg":
        return package_file(*file.package_path)
    if file.scheme == LOCAL:
        return file.local_path if file.local_path.is_file() else None
    return hub.verified_file(file) or (hub.cached(file) if file.scheme == "hf" else None)


def _pinned(file: WeightsFile, hub: Hub, dist: str) -> WeightsFile:
    if file.scheme == LOCAL:
        return msgspec.structs.replace(file, sha256=sha256_of(file.local_path))
    return hub.pin(file, dist=dist) if file.scheme == "hf" else file


def _locked(
    plugin: Installed[Any], files: Mapping[str, WeightsFile], bases: tuple[str, ...]
) -> LockedPlugin:
    return LockedPlugin(
        id=plugin.id,
        kind=kind_of(plugin.spec),
        version=plugin.version,
        publisher=identity_of(plugin.dist, plugin.version) if plugin.dist else None,
        manifest=UNKNOWN if isinstance(plugin, RepositoryModel) else digest(plugin.declared),
        base=bases,
        file=tuple(
            LockedFile(
                name=name,
                source=file.source,
                file=file.file,
                revision=file.revision if file.scheme == "hf" else None,
                sha256=file.sha256,
                size=file.size,
                license=file.license if isinstance(plugin, RepositoryModel | WithFile) else None,
            )
            for name, file in files.items()
        ),
    )
