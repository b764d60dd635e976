"""Builds the catalog from wheels, reading them as archives: nothing is installed or imported."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec

from refiners.catalog.conformance import FILE, Conformance, reports_in
from refiners.catalog.entry import (
    LIST,
    Listed,
    Release,
    entry_files,
    entry_path,
    listed_as,
    read_releases,
    unique,
    write_entries,
)
from refiners.errors import CatalogError, ManifestError, RefinersError
from refiners.host.disk import PUBLIC, write_whole
from refiners.host.text import reason_of
from refiners.installed.distribution import Owner, entry_points_in, owner_in
from refiners.installed.inventory import GROUPS, manifest_place
from refiners.manifest.reader import parse
from refiners.manifest.schema import MANIFESTS, KindName, WeightsFile
from refiners.manifest.version import is_development, is_newer, version_of

_LARGEST: Final = 1_000_000
"""The maximum size in bytes of a manifest or of metadata."""
_METADATA: Final = re.compile(r"[^/]+\.dist-info/METADATA")


def read_wheel(path: Path) -> tuple[Release, ...]:
    """Returns the releases in a wheel, after checking its manifests and the weights inside it.

    Raises:
        CatalogError: The file is not a wheel, or weights in it differ from their pins.
        ManifestError: A manifest breaks its schema.
    """
    try:
        with zipfile.ZipFile(path) as wheel:
            return tuple(_releases(path, wheel))
    except RefinersError:
        raise
    except Exception as error:  # zipfile passes on the errors of many decoders
        raise CatalogError(
            f"{path} is not a wheel of a plugin: {reason_of(error)}.",
            hint="Build one: pip wheel --no-deps .",
        ) from error


def add(folder: Path, published: Iterable[Release]) -> tuple[Release, ...]:
    """Adds releases to a catalog and rewrites its search list.

    A published release never changes; only a development version may be replaced.

    Returns:
        The releases that the catalog did not have.

    Raises:
        CatalogError: A release has another content than the published one of the same version,
            or is malformed; or the folder has a search list of something else. Nothing was written.
    """
    _check_folder(folder)
    files: dict[Path, dict[str, Release]] = {}
    added: list[Release] = []
    for release in published:
        _check_sound(release)
        path = entry_path(folder, release)
        if path not in files:
            files[path] = {str(known): known for known in read_releases(path)}
        known = files[path].get(str(release))
        release = release if known is None else joined(known, release)
        if known == release:
            continue
        if known is not None and known.spec != release.spec:
            files[path].pop(str(release))  # a development version, which goes to the end
        files[path][str(release)] = release
        added.append(release)
    everything = [release for releases in files.values() for release in unique(releases.values())]
    folder.mkdir(parents=True, exist_ok=True)
    write_entries(folder, everything)
    write_list(folder)
    return tuple(added)


def _check_folder(folder: Path) -> None:
    """Refuses to replace a search list that no catalog wrote."""
    listed = folder / LIST
    if entry_files(folder) or not listed.is_file():
        return
    try:
        msgspec.json.decode(listed.read_bytes(), type=tuple[Listed, ...])
    except (msgspec.DecodeError, RecursionError) as error:
        raise CatalogError(
            f"{listed} is not the search list of a catalog.",
            hint="Name another folder, or move the file away.",
        ) from error


def joined(known: Release, release: Release) -> Release:
    """Returns a release that is in a catalog, with what a wheel of the same version adds to it.

    The publisher and the conformance report may be added later; the manifest and a recorded
    publisher never change, except of a development version.

    Raises:
        CatalogError: The wheel has another content, or another publisher.
    """
    if is_development(release.version):
        return release
    if known.spec != release.spec:
        raise CatalogError(
            f"{release.distribution} {release.version} is in the catalog with another "
            f"{release.name}.",
            hint="Raise the version; a published release never changes.",
        )
    publishers = [r.publisher for r in (known, release) if r.publisher is not None]
    if len({publisher.identity for publisher in publishers}) > 1:
        old, new = (publisher.identity for publisher in publishers)
        raise CatalogError(
            f"{release.distribution} {release.version} is in the catalog as published by {old}, "
            f"and this wheel is by {new}.",
            hint="Raise the version; a published release never changes.",
        )
    return msgspec.structs.replace(
        known,
        publisher=max(publishers, key=lambda publisher: publisher.verified, default=None),
        conformance=release.conformance or known.conformance,
    )


def _check_sound(release: Release) -> None:
    try:
        listed_as(release)
    except ValueError as error:
        raise CatalogError(
            f"{release!s:.200} cannot be published: {error}.",
            hint="Fix its manifest or its version, and build the wheel again.",
        ) from error


def write_list(folder: Path) -> None:
    """Rewrites the search list of a catalog from its releases.

    Raises:
        CatalogError: A file of the catalog is damaged, or a release in it is malformed.
    """
    newest: dict[tuple[str, str, str], Release] = {}
    for release in unique(r for path in entry_files(folder) for r in read_releases(path)):
        known = newest.setdefault(release.key, release)
        if is_newer(release.version, known.version):
            newest[release.key] = release
    try:
        everything = sorted(
            map(listed_as, newest.values()), key=lambda entry: (entry.name, entry.id)
        )
    except ValueError as error:
        raise CatalogError(
            f"{folder} has a malformed release: {error}.",
            hint="Restore it; if it was fetched, run refiners catalog forget.",
        ) from error
    lines = ",\n".join(msgspec.json.encode(entry).decode() for entry in everything)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / LIST, f"[\n{lines}\n]\n".encode(), PUBLIC)


def _releases(path: Path, wheel: zipfile.ZipFile) -> Iterator[Release]:
    names = wheel.namelist()
    if len(names) != len({*names}):
        raise ValueError("it has two files of one name")
    info = next((name for name in names if _METADATA.fullmatch(name)), None)
    if info is None:
        raise ValueError("it has no METADATA")
    owner = owner_in(_bytes(wheel, info).decode("utf-8", "replace"))
    if owner is None or version_of(owner.version) is None:
        raise ValueError("its METADATA lacks a name or a version that pip accepts")
    points = _bytes(wheel, str(PurePosixPath(info).with_name("entry_points.txt"))).decode("utf-8")
    for group, _, value in entry_points_in(points):
        if (kind := GROUPS.get(group)) is None:
            continue
        package, name = manifest_place(value)
        text = _bytes(wheel, f"{package}/{name}").decode("utf-8")
        reports = _reports(wheel, package, owner)
        for release_name, spec in _tables(text, kind, path / package / name, owner.name).items():
            _check_weights(wheel, package, spec.weights)
            yield Release(
                name=release_name,
                kind=kind,
                distribution=owner.name,
                version=owner.version,
                spec=msgspec.json.decode(msgspec.json.encode(spec)),
                conformance=reports.get(release_name),
            )


def _reports(wheel: zipfile.ZipFile, package: str, owner: Owner) -> dict[str, Conformance]:
    """Returns the conformance reports in a package by the name of the plugin."""
    place = f"{package}/{FILE}"
    if place not in wheel.namelist():
        return {}
    reports = reports_in(_bytes(wheel, place))
    for report in reports:
        if not report.is_of(owner.name, owner.version):
            raise ValueError(
                f"{place} is about {report.dist} {report.version}; "
                f"run pytest --conformance {FILE} again"
            )
    return {report.name: report for report in reports}


def _tables(text: str, kind: KindName, path: Path, dist: str) -> Mapping[str, Any]:
    manifest, faults = parse(text, MANIFESTS[kind])
    if manifest is None:
        raise ManifestError(path, faults, dist=dist)
    return manifest.tables


def _check_weights(
    wheel: zipfile.ZipFile, package: str, weights: Mapping[str, WeightsFile]
) -> None:
    for file in weights.values():
        owner, name = file.package_path
        if file.scheme != "pkg" or owner != package:
            continue
        size = wheel.getinfo(f"{package}/{name}").file_size
        if file.size not in (None, size):
            raise ValueError(f"{package}/{name} has {size} bytes, the pinned size is {file.size}")
        with wheel.open(f"{package}/{name}") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
        if sha256 != file.sha256:
            raise ValueError(
                f"{package}/{name} has the sha256 {sha256}, the pinned one is {file.sha256}"
            )


def _bytes(wheel: zipfile.ZipFile, name: str) -> bytes:
    if wheel.getinfo(name).file_size > _LARGEST:
        raise ValueError(f"{name} is larger than {_LARGEST} bytes")
    return wheel.read(name)
