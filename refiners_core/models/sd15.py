"""The family of Stable Diffusion 1.5: how its models are built, and read as published."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from refiners_core.errors import ModelError
from refiners_core.models.clip.config import ClipTextConfig
from refiners_core.models.clip.layout import CLIP_TEXT_KEYS
from refiners_core.models.clip.text import ClipTextEncoder
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.config_reader import Published
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import SLOTS, LatentDiffusion
from refiners_core.models.folder import PublishedFolder, load_parts
from refiners_core.models.pipeline_index import check_index
from refiners_core.models.samplers import DDIM, Sampler, ScheduleConfig, sampler_from_json
from refiners_core.models.unet import UNET_KEYS, UNet, UNetConfig
from refiners_core.models.vae import AUTOENCODER_KEYS, AutoencoderConfig, AutoencoderKL


def build(
    *,
    unet: UNetConfig | None = None,
    text_encoder: ClipTextConfig | None = None,
    autoencoder: AutoencoderConfig | None = None,
    schedule: ScheduleConfig | Sampler | None = None,
    tokenizer: ClipTokenizer | None = None,
    size: int | tuple[int, int] = 512,
    base: str = "sd15",
    facts: Mapping[str, Any] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LatentDiffusion:
    """Builds an untrained model of this family; without configurations, of the released sizes.

    Args:
        unet: Sizes of the UNet.
        text_encoder: Sizes of the text encoder.
        autoencoder: Sizes of the autoencoder.
        schedule: The noise that the UNet knows; or, with it, the sampler to take by default.
        tokenizer: Without one the model can be looked at and edited, but not generate.
        size: The side of a picture, or width and height, in pixels, by default.
        base: The family's name for adapters; another one for other sizes.
        facts: What variants of adapters are compared with, beside those known here.
        device: Where its weights are; on `meta` it has none.
        dtype: Their type.

    Raises:
        ModelError: The configurations do not suit each other.

    Example:
        >>> build(device="meta").slot("unet.cross_attention").expect(16)[0].path
        'unet.down.0.transformer_0.tokens.blocks.0.cross_attention.attention'
    """
    unet = UNetConfig() if unet is None else unet
    text_encoder = ClipTextConfig() if text_encoder is None else text_encoder
    autoencoder = AutoencoderConfig() if autoencoder is None else autoencoder
    check_fit(unet, text_encoder, autoencoder, tokenizer)
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
            text_encoder=ClipTextEncoder(text_encoder),
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
        files: The safetensors files of `unet`, `text_encoder` and `vae`.
        dtype: What they are cast to; as published by default.
        device: Where they go.

    Raises:
        WeightsError: A file is unreadable, or not that of the part.
        ModelError: A part has no file.
    """
    parts = {
        "unet": (model.unet, UNET_KEYS),
        "text_encoder": (model.text_encoder, CLIP_TEXT_KEYS),
        "vae": (model.autoencoder, AUTOENCODER_KEYS),
    }
    load_parts(parts, files, dtype=dtype, device=device)
    return model


def size_of(
    unet: Mapping[str, Any], autoencoder: AutoencoderConfig, released: int = 64
) -> tuple[int, int]:
    """Returns width and height in pixels that a published UNet was trained for.

    Args:
        unet: Its configuration.
        autoencoder: The autoencoder that its latents are for.
        released: The side of the latents of the released one, for a `sample_size` that is missing.

    Raises:
        ModelError: It is neither one number nor a pair.
    """
    height, width = Published(unet, "UNet2DConditionModel").sides("sample_size", released)
    return width * autoencoder.reduction, height * autoencoder.reduction


def load_folder(
    path: str | Path,
    *,
    base: str = "sd15",
    facts: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LatentDiffusion:
    """Reads a model as diffusers publishes it: a folder with a folder for each part.

    Args:
        path: Has `unet`, `vae`, `text_encoder`, `tokenizer` and `scheduler`.
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
    autoencoder = AutoencoderConfig.from_json(folder.config("vae"))
    text_encoder = ClipTextConfig.from_json(folder.config("text_encoder"))
    model = build(
        unet=UNetConfig.from_json(unet),
        text_encoder=text_encoder,
        autoencoder=autoencoder,
        schedule=sampler_from_json(folder.config("scheduler", "scheduler_config.json")),
        tokenizer=ClipTokenizer.load(folder.part("tokenizer"), text_encoder.max_tokens),
        size=size_of(unet, autoencoder),
        base=base,
        facts=facts,
        device="meta",
    )
    files = {name: folder.weights(name, dtype) for name in ("unet", "text_encoder", "vae")}
    return load_weights(model, files, dtype=dtype, device=device)


def check_fit(
    unet: UNetConfig,
    text_encoder: ClipTextConfig,
    autoencoder: AutoencoderConfig,
    tokenizer: ClipTokenizer | None,
) -> None:
    """Refuses parts that do not suit each other.

    Raises:
        ModelError: Widths, channels or numbers of tokens differ.
    """
    latents = autoencoder.latent_channels
    # A UNet that paints into pictures reads a mask and the latents of the masked picture as well.
    reads = 2 * latents + 1 if unet.in_channels > latents else latents
    pairs = [
        ("the UNet reads texts of width", unet.text_width, "texts have", text_encoder.width),
        ("the UNet reads channels", unet.in_channels, "latents and a mask have", reads),
        ("the UNet writes channels", unet.out_channels, "latents have", latents),
    ]
    if tokenizer is not None:
        length, size = text_encoder.max_tokens, text_encoder.vocabulary
        pairs.append(("a prompt has tokens", tokenizer.length, "the text encoder reads", length))
        pairs.append(("the tokenizer knows tokens", tokenizer.size, "the text encoder", size))
    for what, found, other, wanted in pairs:
        if found != wanted:
            raise ModelError(
                f"these parts are not of one model: {what}: {found}, {other}: {wanted}.",
                hint="Take all configurations from one release.",
            )
