"""Building models of a family, and reading them from their published configurations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from refiners_core.errors import ModelError
from refiners_core.models.clip.config import ClipTextConfig
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import Family, LatentDiffusion
from refiners_core.models.folder import PublishedFolder, load_parts
from refiners_core.models.pipeline_index import check_index, padding_of
from refiners_core.models.samplers import DDIM, Sampler, ScheduleConfig, sampler_from_json
from refiners_core.models.unet import UNet, UNetConfig
from refiners_core.models.vae import AutoencoderConfig, AutoencoderKL


def assemble(
    family: Family,
    *,
    unet: UNetConfig | None = None,
    text_encoders: Sequence[ClipTextConfig] | None = None,
    autoencoder: AutoencoderConfig | None = None,
    schedule: ScheduleConfig | Sampler | None = None,
    scheduler: Mapping[str, Any] | None = None,
    tokenizer: ClipTokenizer | None = None,
    size: int | tuple[int, int] | None = None,
    base: str | None = None,
    facts: Mapping[str, Any] | None = None,
    is_silent_when_empty: bool | None = None,
    padding: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LatentDiffusion:
    """Builds an untrained model of a family; the sizes default to those of the released model.

    Args:
        family: The family.
        unet: The sizes of the UNet.
        text_encoders: The sizes of the text encoders, in the order of their features.
        autoencoder: The sizes of the autoencoder.
        schedule: The noise schedule of the UNet, or the default sampler with that schedule; by
            default the noise schedule of the released model.
        scheduler: The published settings that samplers by name follow; those of `schedule` by
            default.
        tokenizer: The tokenizer; without one the model cannot generate.
        size: The default size of images in pixels: one side, or width and height.
        base: The name of the base model for adapters; the family's by default.
        facts: More facts by which variants of adapters are chosen.
        is_silent_when_empty: Whether an empty negative prompt is encoded as zeros.
        padding: The token with which the last of several text encoders pads texts.
        device: The device of the weights; on `meta` there are none.
        dtype: The dtype of the weights.

    Raises:
        ModelError: The configurations do not fit each other.
    """
    unet = unet or family.unet
    texts = tuple(text_encoders or family.text_encoders)
    autoencoder = autoencoder or family.autoencoder
    check_fit(unet, texts, autoencoder, tokenizer)
    with built_on(device):
        model = LatentDiffusion(
            family=family,
            base=family.name if base is None else base,
            facts={
                "cross_attention_dim": unet.text_width,
                "latent_channels": autoencoder.latent_channels,
                "unet_channels": unet.in_channels,
                **(facts or {}),
            },
            tokenizer=tokenizer,
            sampler=schedule
            if isinstance(schedule, Sampler)
            else DDIM(schedule or family.schedule),
            scheduler=scheduler,
            size=family.size if size is None else size,
            is_silent_when_empty=is_silent_when_empty,
            text_encoder=family.build_text_encoder(texts, padding),
            unet=UNet(unet),
            autoencoder=AutoencoderKL(autoencoder),
        )
    return model if dtype is None else model.to(dtype=dtype)


def assemble_published(
    family: Family,
    index: Mapping[str, Any],
    config: Callable[[str], Mapping[str, Any]],
    tokenizer: Callable[[str, int], ClipTokenizer | None],
    *,
    base: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> LatentDiffusion:
    """Builds a model on the meta device from the configurations that it is published with.

    Args:
        family: The family of the model.
        index: The content of its `model_index.json`.
        config: Returns the configuration of a part, such as `unet` or `scheduler`.
        tokenizer: Returns the tokenizer of this name for so many tokens, `tokenizer` or
            `tokenizer_2`; None if the model does not have it.
        base: The name of the base model for adapters; the family's by default.
        facts: More facts by which variants of adapters are chosen.

    Raises:
        ModelError: A configuration is missing or not supported, or two do not fit each other.
    """
    unet = config("unet")
    # Files that leave `force_upcast` out mean the value of the released autoencoder.
    upcast = {"force_upcast": family.autoencoder.overflows_half}
    autoencoder = AutoencoderConfig.from_json({**upcast, **config("vae")})
    texts = [ClipTextConfig.from_json(config(name)) for name in family.texts]
    length = texts[0].max_tokens
    first = tokenizer("tokenizer", length)
    assert first is not None
    padding, is_silent = 0, False
    if len(texts) > 1:
        padding = padding_of(first, tokenizer("tokenizer_2", length))
        default = family.is_silent_when_empty
        is_silent = bool(index.get("force_zeros_for_empty_prompt", default))
    return assemble(
        family,
        unet=UNetConfig.from_json(unet),
        text_encoders=texts,
        autoencoder=autoencoder,
        schedule=sampler_from_json(scheduler := config("scheduler")),
        scheduler=scheduler,
        tokenizer=first,
        size=family.size_of(unet, autoencoder),
        base=base,
        facts=facts,
        is_silent_when_empty=is_silent,
        padding=padding,
        device="meta",
    )


def load_weights(
    model: LatentDiffusion,
    files: Mapping[str, str | Path],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LatentDiffusion:
    """Loads the weights of each part, in the layout of diffusers' folders, and returns the model.

    Args:
        model: The model, best on the meta device.
        files: A safetensors file, or the index of several, by the published name of its part:
            `unet`, `vae`, `text_encoder` and, for SDXL, `text_encoder_2`.
        dtype: The dtype to cast the weights to; as published by default.
        device: The device of the weights.

    Raises:
        WeightsError: A file is unreadable, or its tensors are not those of the part.
        ModelError: A part has no file.
    """
    load_parts(model.family.parts_of(model), files, dtype=dtype, device=device)
    return model


def load_folder(
    family: Family,
    path: str | Path,
    *,
    base: str | None = None,
    facts: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LatentDiffusion:
    """Loads a model as diffusers publishes it: a folder with a folder for each part.

    Args:
        family: The family of the model.
        path: The folder, with `unet`, `vae`, `text_encoder`, `tokenizer` and `scheduler`.
        base: The name of the base model for adapters; the family's by default.
        facts: More facts by which variants of adapters are chosen.
        dtype: The dtype to cast the weights to; as published by default.
        device: The device of the weights.

    Raises:
        ModelError: A part is missing, or is of another family.
        WeightsError: A file is unreadable, or its tensors are not those of the part.
    """
    folder = PublishedFolder(path)
    index = folder.index()
    check_index(index, str(index.get("_class_name") or "StableDiffusionPipeline"))

    def tokenizer(name: str, length: int) -> ClipTokenizer | None:
        if name != "tokenizer" and not (folder.path / name).is_dir():
            return None
        return ClipTokenizer.load(folder.part(name), length)

    model = assemble_published(family, index, folder.config, tokenizer, base=base, facts=facts)
    files = {name: folder.weights(name, dtype) for name in family.parts}
    return load_weights(model, files, dtype=dtype, device=device)


def check_fit(
    unet: UNetConfig,
    text_encoders: Sequence[ClipTextConfig],
    autoencoder: AutoencoderConfig,
    tokenizer: ClipTokenizer | None,
) -> None:
    """Checks that the parts of a model fit each other.

    Raises:
        ModelError: Widths, channels or numbers of tokens differ.
    """
    text = replace(text_encoders[0], width=sum(config.width for config in text_encoders))
    latents = autoencoder.latent_channels
    # An inpainting UNet reads a mask and the latents of the masked image as well.
    reads = 2 * latents + 1 if unet.in_channels > latents else latents
    pairs = [
        ("the UNet reads texts of width", unet.text_width, "texts have", text.width),
        ("the UNet reads channels", unet.in_channels, "latents and a mask have", reads),
        ("the UNet writes channels", unet.out_channels, "latents have", latents),
    ]
    if tokenizer is not None:
        length, size = text.max_tokens, text.vocabulary
        pairs.append(("a prompt has tokens", tokenizer.length, "the text encoder reads", length))
        pairs.append(("the tokenizer knows tokens", tokenizer.size, "the text encoder", size))
    for reader, width, writer, other in pairs:
        if width != other:
            raise ModelError(
                f"these parts are not of one model: {reader}: {width}, {writer}: {other}.",
                hint="Take all configurations from one release.",
            )
    pooled = text_encoders[-1].projection_width
    if len(text_encoders) > 1 and unet.pooled_width != (pooled or 0):
        raise ModelError(
            "these parts are not of one model: the UNet reads pooled texts of width "
            f"{unet.pooled_width}, the second text encoder pools {pooled}.",
            hint="Take all configurations from one release.",
        )
