"""`refiners.lock`: the plugins, manifests and hashes of a machine, to reproduce them on another.

The tool writes the lock; every load that names it compares the installed plugins with it. A
difference is an error that shows both sides.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from refiners.catalog.publisher import IDENTITY
from refiners.choose.publisher import PublisherChange, notice, publisher_changes
from refiners.errors import LockError
from refiners.host.disk import PUBLIC, write_whole
from refiners.host.shell import quoted
from refiners.host.text import UNSEEN
from refiners.installed.distribution import canonical, canonical_id
from refiners.installed.inventory import Installed
from refiners.manifest.pattern import (
    REPOSITORY,
    UNKNOWN,
    Commit,
    Digest,
    FileName,
    LockedLocation,
)
from refiners.manifest.schema import AdapterSpec, KindName, Spec, WeightsFile, kind_of
from refiners.manifest.term import Name
from refiners.manifest.toml import load_toml
from refiners.manifest.version import is_same

NAME: Final = "refiners.lock"
VARIABLE: Final = "REFINERS_LOCK"
_LARGEST: Final = 50_000_000
"""The maximum size of a lock file in bytes."""
_HEAD: Final = "Written by `refiners lock`. Do not edit it; commit it beside the code that uses it."

_ID: Final = (
    rf"^(hf:{REPOSITORY}(@[^/{UNSEEN};&|<>$`\"']+)?(/[^{UNSEEN};&|<>$`\"']+)?"
    rf"|[A-Za-z0-9._-]+:[a-z0-9-]+(=[^{UNSEEN}]+)?)$(?!\n)"
)
_VERSION: Final = r"^[A-Za-z0-9][A-Za-z0-9.!+_-]*$(?!\n)"

S = TypeVar("S", bound=Spec)


class _Table(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """A table of a lock file."""


class LockedFile(_Table, frozen=True, kw_only=True):
    """One file as it was when the lock was written."""

    name: Name
    source: LockedLocation
    file: FileName | None = None
    revision: Commit | None = None
    sha256: Digest
    size: Annotated[int, Meta(gt=0)] | None = None
    license: str | None = None
    """The licence according to the Hub, for files without a manifest."""


class LockedPlugin(_Table, frozen=True, kw_only=True):
    """One plugin as it was when the lock was written."""

    id: Annotated[str, Meta(pattern=_ID, description="a name as refiners lock writes it")]
    kind: KindName
    version: Annotated[str, Meta(pattern=_VERSION, description="a version")]
    manifest: Digest
    publisher: Annotated[str, Meta(pattern=IDENTITY)] | None = None
    """The attested publisher according to the catalog; None if none was recorded."""
    base: tuple[Name, ...] = ()
    """The bases for which the files of an adapter are pinned; any if empty."""
    file: tuple[LockedFile, ...] = ()


class Lock(_Table, frozen=True, kw_only=True):
    """A lock file."""

    schema: Annotated[int, Meta(ge=1, le=1)] = 1
    plugin: tuple[LockedPlugin, ...] = ()

    def get(self, kind: str, id: str) -> LockedPlugin | None:
        """Returns the entry of a plugin; None if it is not locked."""
        wanted = (kind, canonical_id(id))
        return next((p for p in self.plugin if (p.kind, canonical_id(p.id)) == wanted), None)


def read_lock(path: Path) -> Lock:
    """Reads a lock file.

    Raises:
        LockError: The file is missing or damaged, or contradicts itself.
    """
    try:
        lock = msgspec.convert(load_toml(path, largest=_LARGEST)[0], Lock)
    except OSError as error:
        raise LockError(
            f"{path} cannot be read: {error}.", hint=f"Run {lock_command(path)}."
        ) from error
    except (ValueError, RecursionError) as error:  # TomlError and ValidationError are ValueErrors
        what = str(error).replace("\n", " ")
        raise LockError(
            f"{path} is not a lock file of this version: {what}.",
            hint=f"Take it from version control, or write it again: {lock_command(path)}.",
        ) from error
    for contradiction in contradictions(lock):
        raise LockError(
            f"{path} contradicts itself: {contradiction}.",
            hint=f"Take it from version control, or write it again: {lock_command(path)}.",
        )
    return lock


def read_lock_or_empty(path: Path) -> Lock:
    """Reads a lock file, as `read_lock` does; an empty lock if the file does not exist."""
    return read_lock(path) if path.exists() else Lock()


def contradictions(lock: Lock) -> Iterator[str]:
    """Yields the contradictions between entries of a lock."""
    plugins: set[tuple[str, str]] = set()
    pins: dict[tuple[object, ...], LockedFile] = {}
    for plugin in lock.plugin:
        identity = plugin.kind, canonical_id(plugin.id)
        if identity in plugins:
            yield f"the {plugin.kind} {plugin.id} is locked twice"
        plugins.add(identity)
        names: set[str] = set()
        for file in plugin.file:
            if file.name in names:
                yield f"the file {file.name} of {plugin.id} is locked twice"
            names.add(file.name)
            place = file.source, file.file, file.revision
            pin = pins.setdefault(place, file)
            is_resized = None not in (pin.size, file.size) and pin.size != file.size
            if file.revision != UNKNOWN and (pin.sha256 != file.sha256 or is_resized):
                yield f"{file.source} {file.file or ''} has two hashes or sizes at one revision"


def write_lock(path: Path, lock: Lock) -> None:
    """Writes a lock file, sorted and in one step; for a link, writes its target.

    Raises:
        LockError: The file cannot be written, or its path is not a regular file.
    """
    import tomlkit

    plugins = sorted(lock.plugin, key=lambda plugin: (plugin.kind, plugin.id))
    plugins = [
        msgspec.structs.replace(plugin, file=tuple(sorted(plugin.file, key=lambda file: file.name)))
        for plugin in plugins
    ]
    document = tomlkit.document()
    document.add(tomlkit.comment(_HEAD))
    document.update({"schema": lock.schema, **msgspec.to_builtins(Lock(plugin=tuple(plugins)))})
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            raise OSError(errno.EINVAL, "it is not a regular file")
        mode = target.stat().st_mode & 0o777 if target.exists() else PUBLIC
        write_whole(target, tomlkit.dumps(document).encode(), mode)
    except OSError as error:
        raise LockError(
            f"{path} cannot be written: {error.strerror}.",
            hint="Name another path, in an existing folder: --out.",
        ) from error
    except RuntimeError as error:  # raised by Python 3.11 for links in a circle
        raise LockError(
            f"{path} cannot be written: it is a link to itself.",
            hint="Remove the link, or name another path: --out.",
        ) from error


def lock_command(path: Path, *names: str) -> str:
    """Returns the command that writes a lock file, or locks some names in it anew."""
    return quoted("refiners", "lock", *names, "--out", path)


def digest(spec: Spec) -> str:
    """Returns the sha256 of one table of a manifest, independent of the formatting of the file."""
    return hashlib.sha256(msgspec.json.encode(spec, order="sorted")).hexdigest()


def named(lock: str | Path | None) -> Path | None:
    """Returns the path of the lock that the caller or REFINERS_LOCK names; None without one."""
    name = lock if lock is not None else os.environ.get(VARIABLE)
    return Path(name) if name else None


def held(plugin: Installed[S], lock: str | Path | None) -> Installed[S]:
    """Returns a plugin with the pins of the lock; unchanged if no lock is named.

    Raises:
        LockError: The plugin is not in the lock, or differs from it; the message has both sides.
    """
    path = named(lock)
    return plugin if path is None else hold(plugin, read_lock(path), path)


def hold(plugin: Installed[S], lock: Lock, path: Path) -> Installed[S]:
    """Returns a plugin with the pins of a lock that was read, as `held` does."""
    entry = lock.get(kind_of(plugin.spec), plugin.id)
    if entry is None:
        raise LockError(
            f"{plugin.id} is not in {path}.",
            hint=f"Run {lock_command(path, plugin.id)}.",
            dist=plugin.dist,
        )
    if changes := tuple(differences(entry, plugin)):
        lines = "".join(f"\n  {line}" for line in changes)
        raise LockError(
            f"{plugin.id} differs from {path}:{lines}\n",
            hint=f"Run pip install {plugin.dist}=={entry.version}, or lock what is installed: "
            f"{lock_command(path, plugin.id)}.",
            dist=plugin.dist,
        )
    manifest: Mapping[str, WeightsFile] = plugin.spec.weights
    notice(changed_publishers((plugin,), lock), stacklevel=4)
    weights = {file.name: _held(file, manifest[file.name]) for file in entry.file}
    spec = msgspec.structs.replace(plugin.spec, weights=weights)
    return msgspec.structs.replace(plugin, spec=spec)


def _held(locked: LockedFile, file: WeightsFile) -> WeightsFile:
    return msgspec.structs.replace(
        file,
        revision=locked.revision or file.revision,
        sha256=locked.sha256,
        size=locked.size or file.size,
    )


def changed_publishers(
    plugins: Iterable[Installed[Any]], lock: Lock
) -> tuple[PublisherChange, ...]:
    """Returns the changes of publishers since a lock was written."""
    locked = {p.id.partition(":")[0]: p.publisher for p in lock.plugin if p.publisher}
    known = {canonical(dist): publisher for dist, publisher in locked.items()}
    return tuple(publisher_changes(plugins, known)) if known else ()


def differences(locked: LockedPlugin, plugin: Installed[Any]) -> Iterator[str]:
    """Yields each difference between the locked and the installed plugin, with both values.

    Files are compared even if the digest of the manifest matches: a lock whose pins differ from
    those of its manifest was edited by hand.
    """
    if not is_same(locked.version, plugin.version):
        yield f"version: locked {locked.version}, installed {plugin.version}"
    is_other = locked.manifest != digest(plugin.declared)
    changes = [*_changes(locked, plugin.spec, is_other)]
    yield from changes
    if is_other and not changes:
        yield (
            f"manifest: locked {locked.manifest[:12]}, installed {digest(plugin.declared)[:12]} "
            f"(other keys than those of the files; see {plugin.path})"
        )


def _changes(locked: LockedPlugin, spec: Spec, is_other: bool) -> Iterator[str]:
    before = {file.name: file for file in locked.file}
    needed = {*spec.weights}
    if locked.base and isinstance(spec, AdapterSpec):  # other files need not be locked
        variants = [v for v in spec.variant if v.base is None or v.base in locked.base]
        needed = {name for v in variants for name in v.files.values()} if is_other else set()
    for name in sorted({*before, *needed}):
        if name not in spec.weights:
            yield f"weights.{name}: locked, gone from the manifest"
        elif name not in before:
            yield f"weights.{name}: not locked, new in the manifest"
        else:
            for key, change in _pin_changes(before[name], spec.weights[name]):
                yield f"weights.{name}.{key}: {change}"


def _pin_changes(locked: LockedFile, file: WeightsFile) -> Iterator[tuple[str, str]]:
    for key in ("source", "file", "revision", "sha256", "size"):
        was, now = getattr(locked, key), getattr(file, key)
        is_pin = key in ("revision", "sha256", "size")
        is_open = was == UNKNOWN or (key == "revision" and was is None and file.scheme == "hf")
        if is_pin and is_open:
            yield key, "the lock leaves it unknown"
        elif was != now and not (is_pin and (was is None or now in (None, UNKNOWN))):
            yield key, f"locked {was or 'none'}, installed {now or 'none'}"
