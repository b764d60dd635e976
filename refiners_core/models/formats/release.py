"""The released models, built from the files that manifests name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import torch

from refiners_core.models import sd15, sdxl
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.surgery.source import Source

_LENGTH: Final = 77
"""How many tokens the released text encoders read."""


def build_sd15(
    source: Source | None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LatentDiffusion:
    """Builds Stable Diffusion 1.5, with the weights of `source` if there is one.

    Args:
        source: The files `unet`, `vae`, `text-encoder`, `vocab` and `merges`.
        device: Where its weights go; the CPU by default.
        dtype: What they are cast to; as published by default.
    """
    return _built(sd15.build, sd15.load_weights, source, device, dtype)


def build_sdxl(
    source: Source | None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LatentDiffusion:
    """Builds Stable Diffusion XL, with the weights of `source` if there is one.

    Args:
        source: The files `unet`, `vae`, `text-encoder`, `text-encoder-2`, `vocab` and `merges`.
        device: Where its weights go; the CPU by default.
        dtype: What they are cast to; as published by default.
    """
    return _built(sdxl.build, sdxl.load_weights, source, device, dtype)


def read_tokenizer(files: Mapping[str, Path]) -> ClipTokenizer:
    """Returns the tokenizer of the releases from the files `vocab` and `merges`.

    Both families read texts by the same one.

    Raises:
        ModelError: The files are not those of a tokenizer.
    """
    return ClipTokenizer.load(files["vocab"].parent, _LENGTH)


def _built(
    build: Callable[..., LatentDiffusion],
    fill: Callable[..., LatentDiffusion],
    source: Source | None,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> LatentDiffusion:
    if source is None:
        return build(device=device, dtype=dtype)
    model = build(tokenizer=read_tokenizer(source.files), device="meta")
    files = {
        role.replace("-", "_"): path
        for role, path in source.files.items()
        if path.suffix == ".safetensors"
    }
    return fill(model, files, dtype=dtype, device=device).eval().requires_grad_(False)
