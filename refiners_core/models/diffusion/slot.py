"""The places of a latent diffusion model that adapters name."""

from collections.abc import Mapping
from typing import Final

from torch import nn

from refiners_core.layers.attention import Attend, CrossAttention, SelfAttention
from refiners_core.models.diffusion.denoise import Denoise
from refiners_core.models.unet import (
    DownBlock,
    MidBlock,
    SkipRead,
    SkipWrite,
    TimeEmbedding,
    UNet,
)
from refiners_core.surgery.slot import Slot

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
    "unet.down.downsample": Slot(
        "where a level on the way down is halved, before that is recorded",
        "unet",
        name="downsample",
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
"""Part of the public API: names stay, whatever trees become."""
