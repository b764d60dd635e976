"""Checks a built wheel before its publication, without unpacking or running it."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final

LARGEST: Final = 15_000_000
"""The usual limit of a wheel, in bytes."""
_WEIGHTS: Final = (
    *(".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".onnx", ".gguf", ".h5", ".npz", ".npy"),
    *(".msgpack", ".tflite", ".pb"),
)
_PICKLES: Final = (".pkl", ".pickle", ".joblib", ".dill")
_MAGIC: Final = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
"""The first bytes of a pickle."""

Problem = tuple[str, str]
"""The rule, and what breaks it."""


def wheel_problems(
    path: Path,
    *,
    declared: Collection[str] = (),
    required: Collection[str] = (),
    largest: int = LARGEST,
) -> Iterator[Problem]:
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
        yield (
            "wheel",
            f"{path.name} has {size:,} bytes, more than {largest:,}: publish weights on the Hub",
        )
    with zipfile.ZipFile(path) as wheel:
        entries = {info.filename: info for info in wheel.infolist() if not info.is_dir()}
        for name, info in entries.items():
            if info.file_size > largest:
                yield "wheel", f"{name} has {info.file_size:,} bytes, more than {largest:,}"
            with wheel.open(info) as file:
                kind = _kind_of(name, file.read(4))
            if kind == "a pickle":
                yield "wheel", f"{name} is a pickle, which runs code when it is read: leave it out"
            elif kind and name not in declared:
                yield (
                    "wheel",
                    (
                        f"{name} is a file of weights that no manifest pins: publish it on the "
                        f'Hub, or declare it: source = "pkg:{name}"'
                    ),
                )
        for name in required:
            if name not in entries:
                yield "wheel", f"{name} is missing: add it to the package data"
        yield from _metadata(wheel, entries)


def _kind_of(name: str, head: bytes) -> str:
    """Returns `a pickle`, `weights`, or nothing for another file."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _PICKLES or head.startswith(_MAGIC):
        return "a pickle"
    if suffix in (".pt", ".pth", ".ckpt", ".bin") and head.startswith(b"PK"):
        return "a pickle"
    return "weights" if suffix in _WEIGHTS else ""


def _metadata(wheel: zipfile.ZipFile, entries: Mapping[str, object]) -> Iterator[Problem]:
    metadata = next((name for name in entries if fnmatchcase(name, "*.dist-info/METADATA")), None)
    if metadata is None:
        yield "wheel", "the wheel has no METADATA: build it again"
        return
    head, _, body = wheel.read(metadata).decode("utf-8", "replace").partition("\n\n")
    fields = {line.partition(":")[0] for line in head.splitlines()}
    if not body.strip() and "Description" not in fields:
        yield "wheel", 'the wheel has no page for the index: readme = "README.md"'
    if not fields & {"License-Expression", "License"}:
        yield "license", 'the wheel does not state its license: license = "MIT"'
    if "License-File" not in fields:
        yield "license", "the wheel has no file with the text of the license: write LICENSE"
