"""The published files of textual inversions: vectors by word, or by text encoder."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.weights import TensorFile

ENCODERS: Final = ("clip_l", "clip_g")
"""The keys that name a text encoder, in the order of the encoders."""
NAME: Final = "name"
"""The key of the metadata that holds the word."""
_ALIASES: Final = {"text_encoders_0": 0, "text_encoders_1": 1, "clip_l": 0, "clip_g": 1}
_WEBUI: Final = re.compile(r"string_to_param\.(?P<word>.+)", re.DOTALL)
_NAMELESS: Final = ("*", "emb_params")
"""The keys of vectors whose word is the name of the file."""


@dataclass(frozen=True)
class Vectors:
    """The vectors of one word for one text encoder."""

    word: str
    values: Tensor
    """(vectors, width)"""
    encoder: int | None
    """The text encoder that the file names; None if only the width shows it."""


def read_vectors(path: Path) -> list[Vectors]:
    """Reads the vectors of a textual inversion in any published layout.

    The word is the key of the vectors, else the name in the metadata, else that of the file.

    Args:
        path: A safetensors file.

    Raises:
        WeightsError: The file is unreadable, is not a textual inversion, or is damaged.
    """
    with TensorFile(path) as file:
        tensors = {key: file.tensor(key) for key in file.names()}
        name = _plain(file.metadata().get(NAME, "")) or path.stem
    tensors = _vectors_of(tensors)
    encoders = {_ALIASES.get(key) for key in tensors}
    if not tensors or (len(encoders) > 1 and None in encoders):
        odd = [key for key in tensors if key not in _ALIASES] or [*tensors]
        raise WeightsError(
            f"{path.name} is not a textual inversion: it holds {_some(odd)}.",
            hint="Give a file of vectors for a word, such as learned_embeds.safetensors.",
        )
    parts = [
        Vectors(
            name if key in (*_NAMELESS, *_ALIASES) else key,
            _checked(path, key, tensor),
            _ALIASES.get(key),
        )
        for key, tensor in tensors.items()
    ]
    return sorted(parts, key=lambda vectors: vectors.encoder or 0)


def _vectors_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors that are vectors, by word or by encoder."""
    webui = {
        match["word"]: tensor
        for key, tensor in tensors.items()
        if (match := _WEBUI.fullmatch(key)) is not None
    }
    return webui or {**tensors}


def _checked(path: Path, key: str, tensor: Tensor) -> Tensor:
    if tensor.ndim not in (1, 2) or not tensor.is_floating_point() or not tensor.numel():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise WeightsError(
            f"{path.name} is not a textual inversion: {key!r} is {list(tensor.shape)} {kind}, "
            "not a list of vectors.",
            hint="Give a file of vectors for a word, such as learned_embeds.safetensors.",
        )
    values = tensor if tensor.ndim == 2 else tensor[None]
    if not torch.isfinite(values.float()).all():
        raise WeightsError(
            f"{path.name} is damaged: the vectors of {key!r} are not all finite numbers.",
            hint="Fetch it again, or ask its author: training diverged.",
        )
    return values


def _plain(text: str) -> str:
    """Returns a text of the metadata, which is JSON where a pickle was rewritten."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else text


def _some(keys: list[str]) -> str:
    shown = ", ".join(map(repr, sorted(keys)[:2]))
    return f"{shown} and {len(keys) - 2} more" if len(keys) > 2 else shown or "nothing"
