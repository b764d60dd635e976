"""The family of Stable Diffusion XL (arXiv:2307.01952): built, and read as published."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from refiners_core.errors import ModelError
from refiners_core.models import sd15
from refiners_core.models.clip.config import ClipTextConfig
from refiners_core.models.clip.layout import CLIP_TEXT_KEYS
from refiners_core.models.clip.pair import TextEncoderPair
from refiners_core.models.clip.text import ClipTextEncoder
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import SLOTS, LatentDiffusion
from refiners_core.models.folder import PublishedFolder, load_parts
from refiners_core.models.pipeline_index import check_index, padding_of
from refiners_core.models.samplers import DDIM, Sampler, ScheduleConfig, sampler_from_json
from refiners_core.models.unet import UNET_KEYS, UNet, UNetConfig
from refiners_core.models.vae import AUTOENCODER_KEYS, AutoencoderConfig, AutoencoderKL

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
TEXT_ENCODER: Final = ClipTextConfig()
"""CLIP ViT-L/14, whose features come first."""
TEXT_ENCODER_2: Final = ClipTextConfig(
    width=1280,
    inner_width=5120,
    layers=32,
    heads=20,
    activation="gelu",
    projection_width=1280,
)
"""OpenCLIP ViT-bigG/14, which pools as well."""
AUTOENCODER: Final = AutoencoderConfig(scaling_factor=0.13025, overflows_half=True)
size_of: Final = partial(sd15.size_of, released=128)
"""Returns width and height in pixels that a published UNet of this family was trained for."""
PARTS: Final = ("unet", "text_encoder", "text_encoder_2", "vae")
"""What has files of its own in a published folder."""


def build(
    *,
    unet: UNetConfig = UNET,
    text_encoder: ClipTextConfig = TEXT_ENCODER,
    text_encoder_2: ClipTextConfig = TEXT_ENCODER_2,
    autoencoder: AutoencoderConfig = AUTOENCODER,
    schedule: ScheduleConfig | Sampler | None = None,
    tokenizer: ClipTokenizer | None = None,
    size: int | tuple[int, int] = 1024,
    base: str = "sdxl",
    facts: Mapping[str, Any] | None = None,
    is_silent_when_empty: bool = True,
    padding_2: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LatentDiffusion:
    """Builds an untrained model of this family; without configurations, of the released sizes.

    Args:
        unet: Sizes of the UNet.
        text_encoder: Sizes of the text encoder whose features come first.
        text_encoder_2: Sizes of that which pools as well.
        autoencoder: Sizes of the autoencoder.
        schedule: The noise that the UNet knows; or, with it, the sampler to take by default.
        tokenizer: Without one the model can be looked at and edited, but not generate.
        size: The side of a picture, or width and height, in pixels, by default.
        base: The family's name for adapters; another one for other sizes.
        facts: What variants of adapters are compared with, beside those known here.
        is_silent_when_empty: Whether an empty negative prompt is encoded as zeros.
        padding_2: What the second text encoder reads after the end of a text.
        device: Where its weights are; on `meta` it has none.
        dtype: Their type.

    Raises:
        ModelError: The configurations do not suit each other.

    Example:
        >>> build(device="meta").slot("unet.cross_attention").expect(70)[0].path
        'unet.down.1.transformer_0.tokens.blocks.0.cross_attention.attention'
    """
    both = replace(text_encoder, width=text_encoder.width + text_encoder_2.width)
    sd15.check_fit(unet, both, autoencoder, tokenizer)
    pooled = text_encoder_2.projection_width
    if unet.pooled_width != (pooled or 0):
        raise ModelError(
            "these parts are not of one model: the UNet reads pooled texts of width "
            f"{unet.pooled_width}, the second text encoder pools {pooled}.",
            hint="Take all configurations from one release.",
        )
    with built_on(device):
        model = LatentDiffusion(
            base=base,
            facts={
                "cross_attention_dim": unet.text_width,
                "latent_channels": autoencoder.latent_channels,
                **(facts or {}),
            },
            slots=SLOTS,
            tokenizer=tokenizer,
            sampler=schedule
            if isinstance(schedule, Sampler)
            else DDIM(schedule or ScheduleConfig()),
            size=size,
            is_silent_when_empty=is_silent_when_empty,
            text_encoder=TextEncoderPair(
                ClipTextEncoder(text_encoder), ClipTextEncoder(text_encoder_2), padding=padding_2
            ),
            unet=UNet(unet),
            autoencoder=AutoencoderKL(autoencoder),
        )
    return model if dtype is None else model.to(dtype=dtype)


def load_weights(
    model: LatentDiffusion,
    files: Mapping[str, str | Path],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LatentDiffusion:
    """Gives a model weights as diffusers publishes them, and returns it.

    Args:
        model: One of this family, best on the meta device.
        files: The safetensors files of `unet`, `text_encoder`, `text_encoder_2` and `vae`.
        dtype: What they are cast to; as published by default.
        device: Where they go.

    Raises:
        WeightsError: A file is unreadable, or not that of the part.
        ModelError: A part has no file.
    """
    encoders = model.layer("text_encoder", TextEncoderPair)
    parts = {
        "unet": (model.unet, UNET_KEYS),
        "text_encoder": (encoders.layer("clip_l.encoder", ClipTextEncoder), CLIP_TEXT_KEYS),
        "text_encoder_2": (encoders.layer("clip_g.encoder", ClipTextEncoder), CLIP_TEXT_KEYS),
        "vae": (model.autoencoder, AUTOENCODER_KEYS),
    }
    load_parts(parts, files, dtype=dtype, device=device)
    return model


def load_folder(
    path: str | Path,
    *,
    base: str = "sdxl",
    facts: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LatentDiffusion:
    """Reads a model as diffusers publishes it: a folder with a folder for each part.

    Args:
        path: Has `unet`, `vae`, `text_encoder`, `text_encoder_2`, `tokenizer` and `scheduler`;
            a `tokenizer_2` may differ from the first in its padding only.
        base: The family's name for adapters; another one for other sizes.
        facts: What variants of adapters are compared with, beside those known here.
        dtype: What weights are cast to; as published by default.
        device: Where they go.

    Raises:
        ModelError: A part is missing, or of another family.
        WeightsError: A file is unreadable, or not that of the part.
    """
    folder = PublishedFolder(path)
    index = folder.index()
    check_index(index, str(index.get("_class_name") or "StableDiffusionPipeline"))
    unet = folder.config("unet")
    autoencoder = AutoencoderConfig.from_json({"force_upcast": True, **folder.config("vae")})
    text_encoder = ClipTextConfig.from_json(folder.config("text_encoder"))
    length = text_encoder.max_tokens
    tokenizer = ClipTokenizer.load(folder.part("tokenizer"), length)
    has_second = (folder.path / "tokenizer_2").is_dir()
    second = ClipTokenizer.load(folder.part("tokenizer_2"), length) if has_second else None
    model = build(
        unet=UNetConfig.from_json(unet),
        text_encoder=text_encoder,
        text_encoder_2=ClipTextConfig.from_json(folder.config("text_encoder_2")),
        autoencoder=autoencoder,
        schedule=sampler_from_json(folder.config("scheduler", "scheduler_config.json")),
        tokenizer=tokenizer,
        padding_2=padding_of(tokenizer, second),
        size=size_of(unet, autoencoder),
        base=base,
        facts=facts,
        is_silent_when_empty=bool(index.get("force_zeros_for_empty_prompt", True)),
        device="meta",
    )
    files = {name: folder.weights(name, dtype) for name in PARTS}
    return load_weights(model, files, dtype=dtype, device=device)
