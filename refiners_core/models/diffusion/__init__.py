"""Text to pictures by denoising latents: the model, and one step of it as a tree."""

from refiners_core.models.diffusion.denoise import (
    COND,
    UNCOND,
    Branches,
    Denoise,
    Guidance,
    Predict,
    SamplerStep,
)
from refiners_core.models.diffusion.finite import NotFiniteError
from refiners_core.models.diffusion.latent_diffusion import LatentDiffusion
from refiners_core.models.diffusion.loop import Preview
from refiners_core.models.diffusion.request import GenerationRequest
from refiners_core.models.diffusion.slot import SLOTS

__all__ = [
    "COND",
    "SLOTS",
    "UNCOND",
    "Branches",
    "Denoise",
    "GenerationRequest",
    "Guidance",
    "LatentDiffusion",
    "NotFiniteError",
    "Predict",
    "Preview",
    "SamplerStep",
]
