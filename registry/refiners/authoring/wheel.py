"""Checks a built wheel before its publication, without unpacking or running it."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

LARGEST: Final = 15_000_000
"""The usual limit of a wheel, in bytes."""
_WEIGHTS: Final = (
    *(".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".onnx", ".gguf", ".h5", ".npz", ".npy"),
    *(".msgpack", ".tflite", ".pb"),
)
_PICKLES: Final = (".pkl", ".pickle", ".joblib", ".dill")
_MAGIC: Final = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
"""The first bytes of a pickle."""


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

    Raises:
        OSError, zipfile.BadZipFile: The wheel cannot be read.
    """
    size = path.stat().st_size
    if size > largest:
        what = f"{path.name} has {size:,} bytes, more than {largest:,}"
        yield WheelProblem("wheel", what, "publish weights on the Hub")
    with zipfile.ZipFile(path) as wheel:
        entries = {info.filename: info for info in wheel.infolist() if not info.is_dir()}
        for name, info in entries.items():
            if info.file_size > largest:
                what = f"{name} has {info.file_size:,} bytes, more than {largest:,}"
                yield WheelProblem("wheel", what, "publish weights on the Hub")
            with wheel.open(info) as file:
                kind = _kind_of(name, file.read(4))
            if not kind and _has_pickle(wheel, info, largest):
                kind = "a pickle"
            if kind == "a pickle":
                what = f"{name} is a pickle, which runs code when it is read"
                yield WheelProblem("wheel", what, "leave it out")
            elif kind and name not in declared:
                what = f"{name} is a file of weights that no manifest pins"
                fix = f'publish it on the Hub, or declare it: source = "pkg:{name}"'
                yield WheelProblem("wheel", what, fix)
        for name in required:
            if name not in entries:
                yield WheelProblem("wheel", f"{name} is missing", "add it to the package data")
        yield from _metadata(wheel, entries)


def _kind_of(name: str, head: bytes) -> str:
    """Returns `a pickle`, `weights`, or nothing for another file."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _PICKLES or head.startswith(_MAGIC):
        return "a pickle"
    if suffix in (".pt", ".pth", ".ckpt", ".bin") and head.startswith(b"PK"):
        return "a pickle"
    return "weights" if suffix in _WEIGHTS else ""


def _has_pickle(wheel: zipfile.ZipFile, info: zipfile.ZipInfo, largest: int) -> bool:
    """Whether a file is an archive with a pickle, as torch.save writes it."""
    with wheel.open(info) as file:
        if file.read(4) != b"PK\x03\x04" or info.file_size > largest:
            return False
        file.seek(0)
        try:
            with zipfile.ZipFile(file) as inner:
                return any(name.endswith(_PICKLES) for name in inner.namelist())
        except zipfile.BadZipFile:
            return False


def _metadata(wheel: zipfile.ZipFile, entries: Mapping[str, object]) -> Iterator[WheelProblem]:
    metadata = next((name for name in entries if fnmatchcase(name, "*.dist-info/METADATA")), None)
    if metadata is None:
        yield WheelProblem("wheel", "the wheel has no METADATA", "build it again")
        return
    head, _, body = wheel.read(metadata).decode("utf-8", "replace").partition("\n\n")
    fields = {line.partition(":")[0] for line in head.splitlines()}
    if not body.strip() and "Description" not in fields:
        what = "the wheel has no page for the index"
        yield WheelProblem("wheel", what, 'readme = "README.md"')
    if not fields & {"License-Expression", "License"}:
        yield WheelProblem("license", "the wheel does not state its license", 'license = "MIT"')
    if "License-File" not in fields:
        what = "the wheel has no file with the text of the license"
        yield WheelProblem("license", what, "write LICENSE")
