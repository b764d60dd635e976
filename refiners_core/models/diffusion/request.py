"""The facts of one generation that adapters read."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class GenerationRequest:
    """The facts of one generation that an adapter's `encode` may need; fields may be added."""

    model: Any
    """The model that generates."""
    count: int
    """The number of images, which is the number of rows of one branch."""
    branches: tuple[str, ...]
    """The passes before adapters add theirs: `uncond` and `cond`, or `cond` alone."""
    height: int
    """Height of the images in pixels."""
    width: int
    """Width of the images in pixels."""
    latent_height: int
    """Height of the latents."""
    latent_width: int
    """Width of the latents."""
    dtype: torch.dtype
    """The dtype of the network, to which the tensors of `encode` are cast."""
    device: torch.device
    """The device of the network, to which the tensors of `encode` are moved."""
    mask: Float[Tensor, "1 1 height width"] | None = None
    """The area in which the adapter acts, in 0...1; None for the whole image."""
