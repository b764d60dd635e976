"""Hashes of the values that a generation reads, for its recipe; they hold no path and no pixel."""

import hashlib
import math
import os
import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Final, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from refiners_core.picture.raster import is_clear, is_deep, upright

_DEEPEST: Final = 4
"""The depth of nested values from which on only their type is recorded."""


def digest(value: Any, depth: int = 0) -> Any:
    """Returns what a recipe records of a value: numbers, texts, and hashes of everything else.

    A picture becomes `{"picture": sha256, "size": [width, height], "name": "edges.png"}`, where the
    name is that of its file, if known; a tensor or an array `{"tensor": sha256, "shape": [...],
    "dtype": ...}`; values by name `{"inputs": {...}}`; a path, and a text that is one of a file,
    `{"path": name}` without the folder; anything else `{"object": type}`.

    Args:
        value: A condition, a mask, or an option of an adapter.
        depth: The number of lists and mappings around the value.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    if isinstance(value, str | os.PathLike):
        return _of_text(value)
    if isinstance(value, Image.Image):
        return _of_image(value)
    if isinstance(value, Tensor | np.ndarray):
        return _of_array(value)
    if depth < _DEEPEST and isinstance(value, list | tuple):
        return [digest(item, depth + 1) for item in cast("list[Any]", value)]
    if depth < _DEEPEST and isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {"inputs": {str(name): digest(item, depth + 1) for name, item in items}}
    return {"object": type(cast(object, value)).__name__}


def picture_digest(image: Image.Image) -> str:
    """Returns the sha256 of the pixels that viewers show: upright, in RGB or RGBA, or deeper."""
    image = upright(image)
    if not is_deep(image):
        image = image.convert("RGBA" if is_clear(image) else "RGB")
    header = f"{image.mode} {image.width} {image.height}\n".encode()
    return hashlib.sha256(header + image.tobytes()).hexdigest()


def base_name(path: str) -> str:
    """Returns the last part of a path of any operating system."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def _of_image(image: Image.Image) -> dict[str, Any]:
    try:
        recorded = {"picture": picture_digest(image), "size": [*upright(image).size]}
    except (OSError, SyntaxError, ValueError):  # a truncated file, which the adapter will refuse
        return {"object": type(image).__name__}
    name = vars(image).get("filename")
    return recorded | ({"name": base_name(os.fsdecode(name))} if name else {})


def _of_array(value: Any) -> dict[str, Any]:
    array = value.detach().cpu().contiguous() if isinstance(value, Tensor) else value
    shape, dtype = [*array.shape], str(array.dtype).removeprefix("torch.")
    if isinstance(array, Tensor):
        content = array.reshape(-1).view(torch.uint8).numpy().tobytes()
    else:
        content = np.ascontiguousarray(array).tobytes()
    header = f"{dtype} {shape}\n".encode()
    return {
        "tensor": hashlib.sha256(header + content).hexdigest(),
        "shape": shape,
        "dtype": dtype,
    }


def _of_text(value: str | os.PathLike[Any]) -> Any:
    text = os.fsdecode(value)
    name = base_name(text)
    if isinstance(value, str) and (name == text or not _exists(text)):
        return text
    return {"path": name}


def _exists(path: str) -> bool:
    try:
        return os.path.exists(os.path.expanduser(path))
    except (OSError, ValueError):
        return False
