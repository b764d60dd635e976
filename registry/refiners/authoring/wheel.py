"""Checks a built wheel before its publication, without unpacking or running it."""

from __future__ import annotations

import email
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from refiners.host.text import reason_of
from refiners.installed.distribution import canonical
from refiners.manifest.version import is_same

LARGEST: Final = 15_000_000
"""The usual limit of a wheel, in bytes."""
_WEIGHTS: Final = (
    *(".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".onnx", ".gguf", ".h5", ".npz", ".npy"),
    *(".msgpack", ".tflite", ".pb"),
)
_PICKLES: Final = (".pkl", ".pickle", ".joblib", ".dill")
_MAGIC: Final = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
"""The first bytes of a pickle."""
_OUTSIDE: Final = re.compile(r"[/\\]|[A-Za-z]:|(.*[/\\])?\.\.([/\\]|$)", re.DOTALL)
"""The beginnings of the paths that lead out of the folder of an installation."""
_REBUILD: Final = "remove the wheel, and build it again: pip wheel --no-deps --wheel-dir dist ."


class WheelProblem(NamedTuple):
    """A fault of a wheel."""

    rule: str
    what: str
    fix: str
    """The next thing to do."""


def wheel_problems(
    path: Path,
    *,
    declared: Collection[str] = (),
    required: Collection[str] = (),
    largest: int = LARGEST,
) -> Iterator[WheelProblem]:
    """Yields the faults of a wheel.

    Args:
        path: The wheel.
        declared: The paths of the weights in it that a manifest pins.
        required: The paths that it must have, such as those of manifests.
        largest: The limit of the wheel and of each file, in bytes.
    """
    try:
        size = path.stat().st_size
        if size > largest:
            what = f"{path.name} has {size:,} bytes, more than {largest:,}"
            yield WheelProblem("wheel", what, "publish weights on the Hub")
        with zipfile.ZipFile(path) as wheel:
            yield from _problems(wheel, path.name, declared, required, largest)
    except Exception as error:  # zipfile passes on the errors of many decoders
        yield WheelProblem("wheel", f"{path.name} cannot be read: {reason_of(error)}", _REBUILD)


def _problems(
    wheel: zipfile.ZipFile,
    file_name: str,
    declared: Collection[str],
    required: Collection[str],
    largest: int,
) -> Iterator[WheelProblem]:
    infos = [info for info in wheel.infolist() if not info.is_dir()]
    counts = Counter(info.filename for info in infos)
    for name, count in counts.items():
        if count > 1:
            yield WheelProblem("wheel", f"it has {count} files named {name}", _REBUILD)
        if _OUTSIDE.match(name):
            what = f"{name} would be installed outside the folder of packages"
            yield WheelProblem("wheel", what, _REBUILD)
    for info in infos:
        name = info.filename
        if info.file_size > largest:
            what = f"{name} has {info.file_size:,} bytes, more than {largest:,}"
            yield WheelProblem("wheel", what, "publish weights on the Hub")
        try:
            kind = _kind_in(wheel, info, largest)
        except Exception as error:  # damaged, encrypted, or compressed in another way
            yield WheelProblem("wheel", f"{name} cannot be read: {reason_of(error)}", _REBUILD)
            continue
        if kind == "a pickle":
            what = f"{name} is a pickle, which runs code when it is read"
            yield WheelProblem("wheel", what, "leave it out")
        elif kind and name not in declared:
            what = f"{name} is a file of weights that no manifest pins"
            fix = f'publish it on the Hub, or declare it: source = "pkg:{name}"'
            yield WheelProblem("wheel", what, fix)
    for name in required:
        if name not in counts:
            yield WheelProblem("wheel", f"{name} is missing", "add it to the package data")
    places = [name for name in counts if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
    if not places:
        yield WheelProblem("wheel", "the wheel has no METADATA", "build it again")
    elif len(places) > 1:
        what = f"the wheel has several METADATA: {', '.join(places)}"
        yield WheelProblem("wheel", what, _REBUILD)
    elif wheel.getinfo(places[0]).file_size <= largest:
        try:
            text = wheel.read(places[0]).decode("utf-8", "replace")
        except Exception:  # a problem above
            return
        metadata = email.message_from_string(text)
        yield from _names(file_name, places[0], metadata)
        yield from _metadata(metadata)


def _kind_in(wheel: zipfile.ZipFile, info: zipfile.ZipInfo, largest: int) -> str:
    """Returns the kind of a file, of which all is read to notice damage unless it is too large."""
    with wheel.open(info) as file:
        head = file.read(4)
        while info.file_size <= largest and file.read(1_000_000):
            pass
    kind = _kind_of(info.filename, head)
    if not kind and head == b"PK\x03\x04" and info.file_size <= largest:
        return "a pickle" if _has_pickle(wheel, info) else ""
    return kind


def _kind_of(name: str, head: bytes) -> str:
    """Returns `a pickle`, `weights`, or nothing for another file."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _PICKLES or head.startswith(_MAGIC):
        return "a pickle"
    if suffix in (".pt", ".pth", ".ckpt", ".bin") and head.startswith(b"PK"):
        return "a pickle"
    return "weights" if suffix in _WEIGHTS else ""


def _has_pickle(wheel: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    """Whether an archive has a pickle, as torch.save writes it."""
    try:
        with wheel.open(info) as file, zipfile.ZipFile(file) as inner:
            return any(name.endswith(_PICKLES) for name in inner.namelist())
    except zipfile.BadZipFile:
        return False


def _names(file_name: str, place: str, metadata: Message) -> Iterator[WheelProblem]:
    """Yields where the name of a wheel differs from its metadata, for which pip refuses it."""
    from packaging.utils import parse_wheel_filename

    try:
        name, parsed, *_ = parse_wheel_filename(file_name)
    except ValueError as error:  # InvalidWheelFilename and InvalidVersion
        what = f"{file_name} is not the name of a wheel: {reason_of(error)}"
        yield WheelProblem("wheel", what, _REBUILD)
        return
    version = str(parsed)
    inside, inner = str(metadata.get("Name", name)), str(metadata.get("Version", version))
    if canonical(inside) != name or not is_same(inner, version):
        what = f"{file_name} is named {name} {version}, and its METADATA say {inside} {inner}"
        yield WheelProblem("wheel", what, _REBUILD)
    elif not canonical(place).startswith(name):
        what = f"{file_name} has the metadata of another package: {place}"
        yield WheelProblem("wheel", what, _REBUILD)


def _metadata(metadata: Message) -> Iterator[WheelProblem]:
    body = metadata.get_payload()
    if not str(body).strip() and "Description" not in metadata:
        what = "the wheel has no page for the index"
        yield WheelProblem("wheel", what, 'readme = "README.md"')
    if "License-Expression" not in metadata and "License" not in metadata:
        yield WheelProblem("license", "the wheel does not state its license", 'license = "MIT"')
    if "License-File" not in metadata:
        what = "the wheel has no file with the text of the license"
        yield WheelProblem("license", what, "write LICENSE")
