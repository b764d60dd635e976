"""The types of the arguments of `generate`, for its overloads."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor

from refiners_core.models.diffusion.preview import Preview
from refiners_core.models.samplers import Sampler


class GenerateOptions(TypedDict, total=False):
    """The arguments of `LatentDiffusion.generate` on which the type of its result does not depend.

    `generate` documents them and has their defaults.
    """

    negative_prompt: str | Sequence[str]
    conditions: Mapping[Any, Any] | None
    steps: int | None
    guidance: float | None
    sampler: Sampler | str | None
    timesteps: Sequence[float] | Tensor | None
    sigmas: Sequence[float] | Tensor | None
    latents: Tensor | None
    size: int | tuple[int, int] | None
    image: Any
    strength: float
    mask: Any
    progress: bool
    callback: Callable[[int, Tensor], bool | None] | None
    sequential: bool
    guidance_rescale: float
    offload: bool | str | torch.device
    preview: Callable[[Preview], Any] | None
    recipe: bool
