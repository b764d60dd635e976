"""Stable Diffusion XL (arXiv:2307.01952): the family, and how its models are built and loaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from refiners_core.models import assembly
from refiners_core.models.assembly import load_weights
from refiners_core.models.clip.config import ClipTextConfig
from refiners_core.models.clip.layout import CLIP_TEXT_KEYS, OPEN_CLIP_TEXT_KEYS
from refiners_core.models.clip.pair import TextEncoderPair
from refiners_core.models.clip.text import ClipTextEncoder
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.diffusion import SLOTS, Family, LatentDiffusion, Part
from refiners_core.models.samplers import Sampler, ScheduleConfig
from refiners_core.models.unet import UNET_KEYS, UNetConfig
from refiners_core.models.vae import AUTOENCODER_KEYS, AutoencoderConfig

__all__ = [
    "AUTOENCODER",
    "SDXL",
    "TEXT_ENCODER",
    "TEXT_ENCODER_2",
    "UNET",
    "build",
    "load_folder",
    "load_weights",
    "size_of",
]

UNET: Final = UNetConfig(
    channels=(320, 640, 1280),
    layers=(2, 2, 2),
    depths=(0, 2, 10),
    mid_depth=10,
    heads=(5, 10, 20),
    text_width=2048,
    has_linear_projection=True,
    added_cond_width=2816,
)
"""The sizes of the released UNet."""
TEXT_ENCODER: Final = ClipTextConfig()
"""The sizes of CLIP ViT-L/14, whose features come first."""
TEXT_ENCODER_2: Final = ClipTextConfig(
    width=1280,
    inner_width=5120,
    layers=32,
    heads=20,
    activation="gelu",
    projection_width=1280,
)
"""The sizes of OpenCLIP ViT-bigG/14, which pools as well."""
AUTOENCODER: Final = AutoencoderConfig(scaling_factor=0.13025, overflows_half=True)
"""The sizes of the released autoencoder."""


def _text_encoder(configs: Sequence[ClipTextConfig], padding: int) -> TextEncoderPair:
    """Builds both text encoders; the second one pads texts with the given token."""
    first, second = (ClipTextEncoder(config, is_part=True) for config in configs)
    return TextEncoderPair(first, second, padding=padding)


SDXL: Final = Family(
    name="sdxl",
    size=1024,
    unet=UNET,
    text_encoders=(TEXT_ENCODER, TEXT_ENCODER_2),
    autoencoder=AUTOENCODER,
    build_text_encoder=_text_encoder,
    parts={
        "unet": Part("unet", UNET_KEYS),
        "vae": Part("autoencoder", AUTOENCODER_KEYS),
        "text_encoder": Part("text_encoder.clip_l.encoder", CLIP_TEXT_KEYS),
        "text_encoder_2": Part("text_encoder.clip_g.encoder", CLIP_TEXT_KEYS),
    },
    single_file_text_keys=CLIP_TEXT_KEYS.under(
        "clip_l.encoder", "conditioner.embedders.0.transformer"
    )
    | OPEN_CLIP_TEXT_KEYS.under("clip_g.encoder", "conditioner.embedders.1.model"),
    slots=SLOTS,
    schedule=ScheduleConfig(spacing="leading"),
    is_silent_when_empty=True,
)
"""The family of Stable Diffusion XL."""
size_of: Final = SDXL.size_of
"""Returns width and height in pixels for which a published UNet of this family was trained."""


def build(
    *,
    unet: UNetConfig = UNET,
    text_encoder: ClipTextConfig = TEXT_ENCODER,
    text_encoder_2: ClipTextConfig = TEXT_ENCODER_2,
    autoencoder: AutoencoderConfig = AUTOENCODER,
    schedule: ScheduleConfig | Sampler | None = None,
    tokenizer: ClipTokenizer | None = None,
    size: int | tuple[int, int] = SDXL.size,
    base: str = SDXL.name,
    facts: Mapping[str, Any] | None = None,
    is_silent_when_empty: bool = True,
    padding_2: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LatentDiffusion:
    """Builds an untrained model of this family; the sizes default to those of the released model.

    Args:
        unet: The sizes of the UNet.
        text_encoder: The sizes of the text encoder whose features come first.
        text_encoder_2: The sizes of the text encoder that pools as well.
        autoencoder: The sizes of the autoencoder.
        schedule: The noise schedule of the UNet, or the default sampler with that schedule.
        tokenizer: The tokenizer; without one the model cannot generate.
        size: The default size of images in pixels: one side, or width and height.
        base: The name of the base model for adapters; choose another one for other sizes.
        facts: More facts by which variants of adapters are chosen.
        is_silent_when_empty: Whether an empty negative prompt is encoded as zeros.
        padding_2: The token with which the second text encoder pads texts.
        device: The device of the weights; on `meta` there are none.
        dtype: The dtype of the weights.

    Raises:
        ModelError: The configurations do not fit each other.

    Example:
        >>> build(device="meta").slot("unet.cross_attention").expect(70)[0].path
        'unet.down.1.transformer_0.tokens.blocks.0.cross_attention.attention'
    """
    return assembly.assemble(
        SDXL,
        unet=unet,
        text_encoders=(text_encoder, text_encoder_2),
        autoencoder=autoencoder,
        schedule=schedule,
        tokenizer=tokenizer,
        size=size,
        base=base,
        facts=facts,
        is_silent_when_empty=is_silent_when_empty,
        padding=padding_2,
        device=device,
        dtype=dtype,
    )


def load_folder(
    path: str | Path,
    *,
    base: str = SDXL.name,
    facts: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LatentDiffusion:
    """Loads a model as diffusers publishes it: a folder with a folder for each part.

    Args:
        path: The folder, with `unet`, `vae`, `text_encoder`, `text_encoder_2`, `tokenizer` and
            `scheduler`; a `tokenizer_2` may differ from the first in its padding only.
        base: The name of the base model for adapters; choose another one for other sizes.
        facts: More facts by which variants of adapters are chosen.
        dtype: The dtype to cast the weights to; as published by default.
        device: The device of the weights.

    Raises:
        ModelError: A part is missing, or is of another family.
        WeightsError: A file is unreadable, or its tensors are not those of the part.
    """
    return assembly.load_folder(SDXL, path, base=base, facts=facts, dtype=dtype, device=device)
