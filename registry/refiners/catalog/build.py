"""Builds the catalog from wheels, which are read as archives: nothing is installed or imported."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import msgspec

from refiners.catalog import Listed, Release, entry_path, read_releases
from refiners.discover import ADAPTERS, MODELS, manifest_place
from refiners.distribution import entry_points_in, owner_in
from refiners.errors import CatalogError, ManifestError
from refiners.manifest import (
    AdapterManifest,
    AdapterSpec,
    ModelManifest,
    ModelSpec,
    WeightsFile,
)
from refiners.parse import parse

_LARGEST: Final = 1_000_000  # bytes of a manifest or of metadata
_KINDS: Final[Mapping[str, Literal["adapter", "model"]]] = {ADAPTERS: "adapter", MODELS: "model"}


def read_wheel(path: Path) -> tuple[Release, ...]:
    """Returns what a wheel publishes, having checked its manifests and the weights inside it.

    Raises:
        CatalogError: It is no wheel, or weights in it are not those that it pins.
        ManifestError: A manifest breaks its schema.
    """
    try:
        with zipfile.ZipFile(path) as wheel:
            return tuple(_releases(path, wheel))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise CatalogError(
            f"{path} is no wheel of a plugin: {error}.", hint="Build one: pip wheel --no-deps ."
        ) from error


def add(folder: Path, published: Iterable[Release]) -> tuple[Release, ...]:
    """Adds releases to a catalog and writes its search list anew.

    A release that is there stays for ever; only a development version may be replaced.

    Returns:
        What was not there before.

    Raises:
        CatalogError: A version was published before with another content; nothing was written.
    """
    from packaging.version import Version

    files: dict[Path, list[Release]] = {}
    added: list[Release] = []
    for release in published:
        path = entry_path(folder, release)
        if path not in files:
            files[path] = [*read_releases(path)]
        known = files[path]
        same = [one for one in known if one.version == release.version]
        if same == [release]:
            continue
        if same and not Version(release.version).is_devrelease:
            raise CatalogError(
                f"{release.distribution} {release.version} is in the catalog with another "
                f"{release.name}.",
                hint="Raise the version; what is published stays as it is.",
            )
        known[:] = [*(one for one in known if one not in same), release]
        added.append(release)
    for path, releases in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, b"".join(msgspec.json.encode(one) + b"\n" for one in releases))
    write_list(folder)
    return tuple(added)


def write_list(folder: Path) -> None:
    """Writes the search list of a catalog anew, from the releases in it."""
    from packaging.version import Version

    everything = [
        _listed(max(read_releases(path), key=lambda one: Version(one.version)))
        for path in sorted(folder.glob("entries/*/*.jsonl"))
    ]
    lines = ",\n".join(
        msgspec.json.encode(one).decode()
        for one in sorted(everything, key=lambda o: (o.name, o.id))
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "search.json", f"[\n{lines}\n]\n".encode())


def _releases(path: Path, wheel: zipfile.ZipFile) -> Iterator[Release]:
    names = wheel.namelist()
    info = next(n for n in [*names, ""] if n.endswith(".dist-info/METADATA") or not n)
    if not info:
        raise ValueError("it has no METADATA")
    owner = owner_in(_bytes(wheel, info).decode("utf-8", "replace"))
    if owner is None:
        raise ValueError("its METADATA name no distribution or no version")
    points = _bytes(wheel, str(PurePosixPath(info).with_name("entry_points.txt"))).decode("utf-8")
    for group, _, value in entry_points_in(points):
        if (kind := _KINDS.get(group)) is None:
            continue
        package, name = manifest_place(value)
        text = _bytes(wheel, f"{package}/{name}").decode("utf-8")
        for one, spec in _tables(text, kind, path / package / name, owner.name).items():
            _check_weights(wheel, package, spec.weights)
            yield Release(
                name=one,
                kind=kind,
                distribution=owner.name,
                version=owner.version,
                spec=msgspec.json.decode(msgspec.json.encode(spec)),
            )


def _tables(
    text: str, kind: Literal["adapter", "model"], path: Path, dist: str
) -> Mapping[str, AdapterSpec | ModelSpec]:
    if kind == "adapter":
        adapters, faults = parse(text, AdapterManifest)
        if adapters is not None:
            return adapters.adapter
    else:
        models, faults = parse(text, ModelManifest)
        if models is not None:
            return models.model
    raise ManifestError(path, faults, dist=dist)


def _check_weights(
    wheel: zipfile.ZipFile, package: str, weights: Mapping[str, WeightsFile]
) -> None:
    for file in weights.values():
        owner, _, name = file.address.partition("/")
        if file.scheme != "pkg" or owner != package:
            continue
        with wheel.open(f"{package}/{name}") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
        if found != file.sha256:
            raise ValueError(f"{package}/{name} has the sha256 {found}, pinned is {file.sha256}")


def _listed(release: Release) -> Listed:
    spec: dict[str, Any] = release.spec
    bases = [variant.get("base") or "any" for variant in spec.get("variant", ())]
    return Listed(
        name=release.name,
        kind=release.kind,
        distribution=release.distribution,
        summary=spec["summary"],
        version=release.version,
        bases=tuple(dict.fromkeys(bases)) or (spec["family"],),
        aliases=tuple(spec.get("aliases", ())),
        does=spec.get("kind", ""),
    )


def _bytes(wheel: zipfile.ZipFile, name: str) -> bytes:
    if wheel.getinfo(name).file_size > _LARGEST:
        raise ValueError(f"{name} is larger than {_LARGEST} bytes")
    return wheel.read(name)


def _write(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(temporary).chmod(0o644)
    Path(temporary).replace(path)
