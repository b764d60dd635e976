"""Text to images by denoising latents: the model, and one denoising step as a tree."""

from refiners_core.models.diffusion.denoise import (
    COND,
    UNCOND,
    Branches,
    Denoise,
    Guidance,
    Predict,
    SamplerStep,
    branch_rows,
    by_branch,
)
from refiners_core.models.diffusion.family import Family, Part
from refiners_core.models.diffusion.finite import NotFiniteError
from refiners_core.models.diffusion.latent_diffusion import LatentDiffusion
from refiners_core.models.diffusion.preview import Preview
from refiners_core.models.diffusion.prompt_tokens import PromptTokens
from refiners_core.models.diffusion.request import GenerationRequest
from refiners_core.models.diffusion.slot import SLOTS
from refiners_core.models.diffusion.window import Window, window_scope

__all__ = [
    "COND",
    "SLOTS",
    "UNCOND",
    "Branches",
    "Denoise",
    "Family",
    "GenerationRequest",
    "Guidance",
    "LatentDiffusion",
    "NotFiniteError",
    "Part",
    "Predict",
    "Preview",
    "PromptTokens",
    "SamplerStep",
    "Window",
    "branch_rows",
    "by_branch",
    "window_scope",
]
