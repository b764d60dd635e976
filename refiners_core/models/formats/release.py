"""The released models, built from the files that manifests name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch

from refiners_core.models.assembly import assemble, load_weights
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.diffusion import Family, LatentDiffusion
from refiners_core.models.sd15 import SD15
from refiners_core.models.sdxl import SDXL
from refiners_core.surgery.source import Source

_LENGTH: Final = 77
"""The number of tokens that the released text encoders read."""


def build_sd15(
    source: Source | None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LatentDiffusion:
    """Builds Stable Diffusion 1.5, with the weights of `source` if it is given.

    Args:
        source: The files `unet`, `vae`, `text-encoder`, `vocab` and `merges`.
        device: The device of the weights; the CPU by default.
        dtype: The dtype to cast the weights to; as published by default.
    """
    return _built(SD15, source, device, dtype)


def build_sdxl(
    source: Source | None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LatentDiffusion:
    """Builds Stable Diffusion XL, with the weights of `source` if it is given.

    Args:
        source: The files `unet`, `vae`, `text-encoder`, `text-encoder-2`, `vocab` and `merges`.
        device: The device of the weights; the CPU by default.
        dtype: The dtype to cast the weights to; as published by default.
    """
    return _built(SDXL, source, device, dtype)


def read_tokenizer(files: Mapping[str, Path]) -> ClipTokenizer:
    """Returns the tokenizer of the releases from the files `vocab` and `merges`.

    Both families share it.

    Raises:
        ModelError: The files are not those of a tokenizer.
    """
    return ClipTokenizer.load(files["vocab"].parent, _LENGTH)


def _built(
    family: Family,
    source: Source | None,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> LatentDiffusion:
    if source is None:
        return assemble(family, device=device, dtype=dtype)
    model = assemble(family, tokenizer=read_tokenizer(source.files), device="meta")
    files = {
        role.replace("-", "_"): path
        for role, path in source.files.items()
        if path.suffix == ".safetensors"
    }
    return load_weights(model, files, dtype=dtype, device=device).eval().requires_grad_(False)
