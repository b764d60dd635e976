"""A whole model so small that it generates in milliseconds."""

from typing import Any

import torch
from tokenizers import pre_tokenizers

from refiners_core.models import sd15
from refiners_core.models.clip import ClipTextConfig
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.samplers import ScheduleConfig
from refiners_core.models.unet import UNetConfig
from refiners_core.models.vae import AutoencoderConfig

_START, _END = "<|startoftext|>", "<|endoftext|>"


def tiny_model(**changes: Any) -> LatentDiffusion:
    """Builds a model of the family of Stable Diffusion 1.5 with random weights, always the same.

    It has every kind of place that the family's slots name: two levels with attention, 32 x 32
    pixels, latents of 8 x 8, texts of 16 tokens of 8 features, a tokenizer that spells.

    Args:
        changes: What `sd15.build` is told otherwise, such as `base`, `facts` or `unet`.

    Example:
        >>> tiny_model().generate("a cat", steps=2, output="tensor", progress=False).shape
        torch.Size([1, 3, 32, 32])
    """
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*signs, *(f"{sign}</w>" for sign in signs), _START, _END]
    parts: dict[str, Any] = {
        "unet": UNetConfig(
            channels=(8, 16),
            layers=(1, 1),
            depths=(1, 1),
            heads=(2, 2),
            text_width=8,
            groups=4,
        ),
        "text_encoder": ClipTextConfig(
            vocabulary=len(words),
            max_tokens=16,
            width=8,
            inner_width=16,
            layers=2,
            heads=2,
            end_token=len(words) - 1,
        ),
        "autoencoder": AutoencoderConfig(
            channels=(8, 8, 8), blocks=1, groups=4, has_attention=False, scaling_factor=1.0
        ),
        "schedule": ScheduleConfig(prediction="v", spacing="trailing"),
        "tokenizer": ClipTokenizer({word: i for i, word in enumerate(words)}, [], length=16),
        "size": 32,
    }
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return sd15.build(**{**parts, **changes}).eval()
