"""The family of Stable Diffusion 1.5: its slots, and how to build and read a model of it."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn

from refiners_core.errors import ModelError
from refiners_core.layers.attention import Attend, CrossAttention, SelfAttention
from refiners_core.models.clip.config import ClipTextConfig
from refiners_core.models.clip.text import ClipTextEncoder
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.diffusion import Denoise, LatentDiffusion
from refiners_core.models.samplers import DDIM, ScheduleConfig
from refiners_core.models.unet import (
    DownBlock,
    MidBlock,
    SkipRead,
    SkipWrite,
    TimeEmbedding,
    UNet,
    UNetConfig,
)
from refiners_core.models.vae import AutoencoderConfig, AutoencoderKL
from refiners_core.slot import Slot

SLOTS: Final[Mapping[str, Slot]] = {
    "unet.input": Slot(
        "before everything: what the UNet is given", "unet", name="input", chain=UNet
    ),
    "unet.conv_in": Slot(
        "the convolution that reads the latents", "unet", name="conv_in", chain=UNet
    ),
    "unet.time_embedding": Slot(
        "the timestep as features, before they are activated",
        "unet",
        name="embed",
        chain=TimeEmbedding,
    ),
    "unet.skip.write": Slot("what a skip records", "unet", name="record", chain=SkipWrite),
    "unet.skip.read": Slot(
        "what a skip recorded, as it is read", "unet", name="record", chain=SkipRead
    ),
    "unet.skip.backbone": Slot(
        "the running value that a skip joins", "unet", name="backbone", chain=SkipRead
    ),
    "unet.down.output": Slot(
        "the running value after a level on the way down, before it is recorded and halved",
        "unet",
        name="output",
        chain=DownBlock,
    ),
    "unet.mid.output": Slot(
        "the running value after the middle", "unet", name="output", chain=MidBlock
    ),
    "unet.self_attention": Slot("where positions look at one another", "unet", SelfAttention),
    "unet.self_attention.attend": Slot(
        "queries, keys and values to what is seen there", "unet", Attend, within=SelfAttention
    ),
    "unet.cross_attention": Slot("where positions look at the text", "unet", CrossAttention),
    "unet.cross_attention.attend": Slot(
        "queries, keys and values to what is seen there", "unet", Attend, within=CrossAttention
    ),
    "unet.linear": Slot("every linear layer", "unet", nn.Linear),
    "unet.conv": Slot("every convolution", "unet", nn.Conv2d),
    "denoise.branches": Slot(
        "where rows are made for each pass", "denoise", name="branches", chain=Denoise
    ),
    "denoise.predict": Slot(
        "what the UNet says of all passes", "denoise", name="predict", chain=Denoise
    ),
    "denoise.guidance": Slot(
        "where passes become one prediction", "denoise", name="guidance", chain=Denoise
    ),
    "denoise.step": Slot("where the sampler goes a step", "denoise", name="step", chain=Denoise),
    "text_encoder.linear": Slot("every linear layer", "text_encoder", nn.Linear),
    "text_encoder.embedding": Slot(
        "the features of each token", "text_encoder", nn.Embedding, name="token"
    ),
}
"""The places that adapters of this family name; on other sizes as well."""


def build(
    *,
    unet: UNetConfig | None = None,
    text_encoder: ClipTextConfig | None = None,
    autoencoder: AutoencoderConfig | None = None,
    schedule: ScheduleConfig | None = None,
    tokenizer: ClipTokenizer | None = None,
    size: int = 512,
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
        schedule: The noise that the UNet knows.
        tokenizer: Without one the model can be looked at and edited, but not generate.
        size: The side of a picture in pixels, by default.
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
    _check(unet, text_encoder, autoencoder, tokenizer)
    with torch.device(device or torch.get_default_device()):
        model = LatentDiffusion(
            base=base,
            facts={
                "cross_attention_dim": unet.text_width,
                "latent_channels": autoencoder.latent_channels,
                **(facts or {}),
            },
            slots=SLOTS,
            tokenizer=tokenizer,
            sampler=DDIM(schedule or ScheduleConfig()),
            size=size,
            text_encoder=ClipTextEncoder(text_encoder),
            unet=UNet(unet),
            autoencoder=AutoencoderKL(autoencoder),
        )
    return model if dtype is None else model.to(dtype=dtype)


def _check(
    unet: UNetConfig,
    text_encoder: ClipTextConfig,
    autoencoder: AutoencoderConfig,
    tokenizer: ClipTokenizer | None,
) -> None:
    """Refuses parts that do not suit each other."""
    pairs = [
        ("the UNet reads texts of width", unet.text_width, "texts have", text_encoder.width),
        ("the UNet reads channels", unet.in_channels, "latents have", autoencoder.latent_channels),
        (
            "the UNet writes channels",
            unet.out_channels,
            "latents have",
            autoencoder.latent_channels,
        ),
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
