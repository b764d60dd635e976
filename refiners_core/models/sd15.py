"""Stable Diffusion 1.5 (arXiv:2112.10752): the family, and how its models are built and loaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from refiners_core.models import assembly
from refiners_core.models.assembly import load_weights
from refiners_core.models.clip.config import ClipTextConfig
from refiners_core.models.clip.layout import CLIP_TEXT_KEYS
from refiners_core.models.clip.text import ClipTextEncoder
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.diffusion import SLOTS, Family, LatentDiffusion, Part
from refiners_core.models.samplers import Sampler, ScheduleConfig
from refiners_core.models.unet import UNET_KEYS, UNetConfig
from refiners_core.models.vae import AUTOENCODER_KEYS, AutoencoderConfig
from refiners_core.weights import KeyMap

__all__ = ["SD15", "build", "load_folder", "load_weights", "size_of"]


def _text_encoder(configs: Sequence[ClipTextConfig], padding: int) -> ClipTextEncoder:
    """Builds the text encoder; its padding is that of the tokenizer."""
    (config,) = configs
    return ClipTextEncoder(config)


SD15: Final = Family(
    name="sd15",
    size=512,
    unet=UNetConfig(),
    text_encoders=(ClipTextConfig(),),
    autoencoder=AutoencoderConfig(),
    build_text_encoder=_text_encoder,
    parts={
        "unet": Part("unet", UNET_KEYS),
        "vae": Part("autoencoder", AUTOENCODER_KEYS),
        "text_encoder": Part("text_encoder", CLIP_TEXT_KEYS),
    },
    # Files may hold the parts of CLIP that compare texts and images, and the copy of the text
    # encoder that early trainers of embeddings saved; Stable Diffusion 1.5 does not use them.
    single_file_text_keys=CLIP_TEXT_KEYS.under("", "cond_stage_model.transformer")
    | KeyMap(
        {},
        ignored=[
            "*text_projection",
            "*text_projection.weight",
            "*visual_projection.weight",
            "*vision_model.*",
            "embedding_manager.*",
        ],
    ),
    slots=SLOTS,
)
"""The family of Stable Diffusion 1.5."""
size_of: Final = SD15.size_of
"""Returns width and height in pixels for which a published UNet of this family was trained."""


def build(
    *,
    unet: UNetConfig | None = None,
    text_encoder: ClipTextConfig | None = None,
    autoencoder: AutoencoderConfig | None = None,
    schedule: ScheduleConfig | Sampler | None = None,
    tokenizer: ClipTokenizer | None = None,
    size: int | tuple[int, int] = SD15.size,
    base: str = SD15.name,
    facts: Mapping[str, Any] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LatentDiffusion:
    """Builds an untrained model of this family; the sizes default to those of the released model.

    Args:
        unet: The sizes of the UNet.
        text_encoder: The sizes of the text encoder.
        autoencoder: The sizes of the autoencoder.
        schedule: The noise schedule of the UNet, or the default sampler with that schedule.
        tokenizer: The tokenizer; without one the model cannot generate.
        size: The default size of images in pixels: one side, or width and height.
        base: The name of the base model for adapters; choose another one for other sizes.
        facts: More facts by which variants of adapters are chosen.
        device: The device of the weights; on `meta` there are none.
        dtype: The dtype of the weights.

    Raises:
        ModelError: The configurations do not fit each other.

    Example:
        >>> build(device="meta").slot("unet.cross_attention").expect(16)[0].path
        'unet.down.0.transformer_0.tokens.blocks.0.cross_attention.attention'
    """
    return assembly.assemble(
        SD15,
        unet=unet,
        text_encoders=None if text_encoder is None else [text_encoder],
        autoencoder=autoencoder,
        schedule=schedule,
        tokenizer=tokenizer,
        size=size,
        base=base,
        facts=facts,
        device=device,
        dtype=dtype,
    )


def load_folder(
    path: str | Path,
    *,
    base: str = SD15.name,
    facts: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LatentDiffusion:
    """Loads a model as diffusers publishes it: a folder with a folder for each part.

    Args:
        path: The folder, with `unet`, `vae`, `text_encoder`, `tokenizer` and `scheduler`.
        base: The name of the base model for adapters; choose another one for other sizes.
        facts: More facts by which variants of adapters are chosen.
        dtype: The dtype to cast the weights to; as published by default.
        device: The device of the weights.

    Raises:
        ModelError: A part is missing, or is of another family.
        WeightsError: A file is unreadable, or its tensors are not those of the part.
    """
    return assembly.load_folder(SD15, path, base=base, facts=facts, dtype=dtype, device=device)
