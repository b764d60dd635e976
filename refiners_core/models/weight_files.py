"""The choice among the weight files of a part. It needs no torch, so registries may ask it too."""

import re
from collections.abc import Collection
from typing import Final

STEMS: Final = ("diffusion_pytorch_model", "model")
"""The names of weight files without precision and suffix."""
_PRECISIONS: Final[dict[str | None, tuple[str, ...]]] = {
    None: ("", ".fp16", ".bf16"),
    "float16": (".fp16", "", ".bf16"),
    "bfloat16": (".bf16", "", ".fp16"),
}
"""The marks of files in each precision, in the order of preference for a dtype."""


def choose_weights(names: Collection[str], dtype: str | None = None) -> tuple[str, ...]:
    """Returns the weight file of a part, or the index of a sharded one and its shards.

    Of files in several precisions, the one in the given dtype is preferred, then the file in full
    precision.

    Args:
        names: The names of the files in the part's folder.
        dtype: The name of the preferred dtype, such as `float16`; full precision by default.

    Returns:
        The file; or the index, then the shards; nothing if no file has readable weights.

    Example:
        >>> choose_weights(["model.safetensors", "model.fp16.safetensors"], "float16")
        ('model.fp16.safetensors',)
    """
    for mark in _PRECISIONS.get(dtype, _PRECISIONS[None]):
        for stem in STEMS:
            if (single := f"{stem}{mark}.safetensors") in names:
                return (single,)
            if (index := f"{stem}.safetensors.index{mark}.json") in names:
                return (index, *_shards(stem, mark, names))
    return ()


def _shards(stem: str, mark: str, names: Collection[str]) -> list[str]:
    number = r"-\d{5}-of-\d{5}"
    either = rf"{stem}({re.escape(mark)}{number}|{number}{re.escape(mark)})\.safetensors"
    return sorted(name for name in names if re.fullmatch(either, name))
