"""What is being generated, as adapters are told."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class GenerationRequest:
    """The facts of one generation that an adapter's `encode` may need; it may grow."""

    model: Any
    """The model that generates."""
    count: int
    """How many pictures are made together: the rows of one branch."""
    branches: tuple[str, ...]
    """The named passes before adapters add theirs: `uncond` and `cond`, or `cond` alone."""
    height: int
    """Of the picture, in pixels."""
    width: int
    """Of the picture, in pixels."""
    latent_height: int
    """Of the latents."""
    latent_width: int
    """Of the latents."""
    dtype: torch.dtype
    """What the network computes in; what `encode` returns is cast to it."""
    device: torch.device
    """Where the network computes; what `encode` returns is moved there."""
    mask: Float[Tensor, "1 1 height width"] | None = None
    """Where this adapter acts, in 0...1, or None for everywhere."""
