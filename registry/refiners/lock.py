"""`refiners.lock`: which plugins, manifests and bytes a machine has, so that another gets the same.

It is written by the tool and read by every load that names it. What is installed is held to it: a
difference is an error that shows both sides.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, cast

import msgspec
from msgspec import Meta

from refiners.discover import Installed
from refiners.distribution import canonical_id
from refiners.errors import LockError
from refiners.manifest import (
    REPOSITORY,
    UNKNOWN,
    AdapterSpec,
    Commit,
    Digest,
    FileName,
    LockedLocation,
    ModelSpec,
    Name,
    WeightsFile,
)
from refiners.text import UNSEEN
from refiners.toml import load_toml
from refiners.version import is_same

NAME: Final = "refiners.lock"
VARIABLE: Final = "REFINERS_LOCK"
_LARGEST: Final = 50_000_000
"""The bytes that a lock file may have."""
_HEAD: Final = "Written by `refiners lock`. Do not edit it; commit it beside the code that uses it."

_ID: Final = (
    rf"^(hf:{REPOSITORY}(@[^/{UNSEEN};&|<>$`\"']+)?(/[^{UNSEEN};&|<>$`\"']+)?"
    rf"|[A-Za-z0-9._-]+:[a-z0-9-]+(=[^{UNSEEN}]+)?)$(?!\n)"
)
_VERSION: Final = r"^[A-Za-z0-9][A-Za-z0-9.!+_-]*$(?!\n)"

S = TypeVar("S", AdapterSpec, ModelSpec)


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
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
    """What the Hub said of it, where no manifest does."""


class LockedPlugin(_Table, frozen=True, kw_only=True):
    """One adapter or model as it was when the lock was written."""

    id: Annotated[str, Meta(pattern=_ID, description="a name as refiners lock writes it")]
    kind: Literal["adapter", "model"]
    version: Annotated[str, Meta(pattern=_VERSION, description="a version")]
    manifest: Digest
    file: tuple[LockedFile, ...] = ()


class Lock(_Table, frozen=True, kw_only=True):
    """A lock file."""

    schema: Annotated[int, Meta(ge=1, le=1)] = 1
    plugin: tuple[LockedPlugin, ...] = ()

    def get(self, kind: str, id: str) -> LockedPlugin | None:
        """Returns what is locked of an adapter or a model."""
        wanted = (kind, canonical_id(id))
        return next((p for p in self.plugin if (p.kind, canonical_id(p.id)) == wanted), None)


def read_lock(path: Path) -> Lock:
    """Reads a lock file.

    Raises:
        LockError: There is none, or it is damaged.
    """
    try:
        return msgspec.convert(load_toml(path, largest=_LARGEST)[0], Lock)
    except OSError as error:
        raise LockError(
            f"{path} cannot be read: {error}.", hint=f"Run refiners lock --out {path}."
        ) from error
    except (ValueError, RecursionError) as error:  # TomlError and ValidationError are ValueErrors
        what = str(error).replace("\n", " ")
        raise LockError(
            f"{path} is no lock file of this version: {what}.",
            hint=f"Take it from version control, or write it anew: refiners lock --out {path}.",
        ) from error


def write_lock(path: Path, lock: Lock) -> None:
    """Writes a lock file, sorted, in one step.

    Raises:
        LockError: The folder cannot be written.
    """
    import tomlkit

    plugins = sorted(lock.plugin, key=lambda one: (one.kind, one.id))
    plugins = [
        msgspec.structs.replace(one, file=tuple(sorted(one.file, key=lambda file: file.name)))
        for one in plugins
    ]
    document = tomlkit.document()
    document.add(tomlkit.comment(_HEAD))
    table: dict[str, Any] = msgspec.to_builtins(Lock(plugin=tuple(plugins)))
    document.update(_without_none(table))
    try:
        handle, temporary = tempfile.mkstemp(dir=path.resolve().parent, suffix=".lock")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(tomlkit.dumps(document))
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise LockError(
            f"{path} cannot be written: {error.strerror}.",
            hint="Name another place, in a folder that is there: --out.",
        ) from error


def digest(spec: AdapterSpec | ModelSpec) -> str:
    """Returns the sha256 of one table of a manifest, however the file around it is written."""
    return hashlib.sha256(msgspec.json.encode(spec, order="sorted")).hexdigest()


def kind_of(plugin: Installed[Any]) -> Literal["adapter", "model"]:
    """Returns what a manifest describes."""
    return "adapter" if isinstance(plugin.spec, AdapterSpec) else "model"


def named(lock: str | Path | None) -> Path | None:
    """Returns the lock that a caller or the environment names; no folder is searched for one."""
    found = lock if lock is not None else os.environ.get(VARIABLE)
    return Path(found) if found else None


def held(plugin: Installed[S], lock: str | Path | None) -> Installed[S]:
    """Returns a plugin whose files are pinned as the lock says; itself where no lock is named.

    Raises:
        LockError: It is not in the lock, or is not what was locked; the message has both sides.
    """
    path = named(lock)
    return plugin if path is None else hold(plugin, read_lock(path), path)


def hold(plugin: Installed[S], lock: Lock, path: Path) -> Installed[S]:
    """Does what `held` does, for a lock that was read."""
    found = lock.get(kind_of(plugin), plugin.id)
    if found is None:
        raise LockError(
            f"{plugin.id} is not in {path}.",
            hint=f"Run refiners lock {plugin.id} --out {path}.",
            dist=plugin.dist,
        )
    if said := tuple(differences(found, plugin)):
        lines = "".join(f"\n  {line}" for line in said)
        raise LockError(
            f"{plugin.id} is not what {path} locked:{lines}\n",
            hint=f"Run pip install {plugin.dist}=={found.version}, or accept it: "
            f"refiners lock {plugin.id} --out {path}.",
            dist=plugin.dist,
        )
    weights = {
        one.name: msgspec.structs.replace(
            plugin.spec.weights[one.name],
            revision=one.revision or UNKNOWN,
            sha256=one.sha256,
            size=one.size or plugin.spec.weights[one.name].size,
        )
        for one in found.file
    }
    spec = msgspec.structs.replace(plugin.spec, weights=weights)
    return msgspec.structs.replace(plugin, spec=spec)


def differences(locked: LockedPlugin, plugin: Installed[Any]) -> Iterator[str]:
    """Yields what was locked beside what is installed, where the two are not the same."""
    if not is_same(locked.version, plugin.version):
        yield f"version: locked {locked.version}, installed {plugin.version}"
    if locked.manifest == digest(plugin.declared) and not any(
        UNKNOWN in (file.revision, file.sha256) for file in locked.file
    ):
        return
    before = {file.name: file for file in locked.file}
    after: dict[str, WeightsFile] = plugin.spec.weights
    files = [*_changes(before, after)]
    yield from files
    if not files:
        yield (
            f"manifest: locked {locked.manifest[:12]}, installed {digest(plugin.declared)[:12]} "
            f"(other keys than those of the files; see {plugin.path})"
        )


def _changes(before: dict[str, LockedFile], after: dict[str, WeightsFile]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        if name not in after:
            yield f"weights.{name}: locked, gone from the manifest"
        elif name not in before:
            yield f"weights.{name}: not locked, new in the manifest"
        else:
            old, new = before[name], after[name]
            for key in ("source", "file", "revision", "sha256", "size"):
                was, now = getattr(old, key), getattr(new, key)
                if key in ("revision", "sha256") and was == UNKNOWN:
                    yield f"weights.{name}.{key}: the lock leaves it unknown"
                elif now not in (None, UNKNOWN) and was is not None and was != now:
                    yield f"weights.{name}.{key}: locked {was}, installed {now}"


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        items: dict[str, Any] = value
        return {key: _without_none(item) for key, item in items.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in cast("Sequence[Any]", value)]
    return value
