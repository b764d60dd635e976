"""The stable names of places in latent diffusion models."""

from collections.abc import Mapping
from typing import Final

from torch import nn

from refiners_core.layers.attend import Attend
from refiners_core.layers.attention import CrossAttention, SelfAttention
from refiners_core.layers.feed_forward import GatedFeedForward
from refiners_core.layers.residual_block import ResidualBlock
from refiners_core.layers.transformer import SpatialTransformer
from refiners_core.model import Model
from refiners_core.models.clip.layer import ClipLayer
from refiners_core.models.clip.window import TextOutput
from refiners_core.models.diffusion.denoise import Denoise
from refiners_core.models.unet import (
    DownBlock,
    MidBlock,
    SkipRead,
    SkipWrite,
    TimeEmbedding,
    UNet,
    UpBlock,
)
from refiners_core.models.vae import Decoder, Encoder
from refiners_core.surgery.slot import Slot

SLOTS: Final[Mapping[str, Slot]] = {
    "unet.input": Slot(
        "the input of the UNet, before its first layer", "unet", name="input", chain=UNet
    ),
    "unet.conv_in": Slot(
        "the convolution that reads the latents", "unet", name="conv_in", chain=UNet
    ),
    "unet.conv_out": Slot(
        "the convolution that writes the prediction", "unet", name="conv_out", chain=UNet
    ),
    "unet.time_embedding": Slot(
        "the features of the timestep, before their activation",
        "unet",
        name="embed",
        chain=TimeEmbedding,
    ),
    "unet.skip.write": Slot(
        "the feature map that a skip connection records", "unet", name="record", chain=SkipWrite
    ),
    "unet.skip.read": Slot(
        "the recorded feature map, as it is read", "unet", name="record", chain=SkipRead
    ),
    "unet.skip.backbone": Slot(
        "the feature map that a skip connection is joined to",
        "unet",
        name="backbone",
        chain=SkipRead,
    ),
    "unet.down": Slot("a level on the way down", "unet", DownBlock),
    "unet.down.output": Slot(
        "the output of a level on the way down, before it is recorded and downsampled",
        "unet",
        name="output",
        chain=DownBlock,
    ),
    "unet.down.downsample": Slot(
        "the downsampling of a level on the way down, before its output is recorded",
        "unet",
        name="downsample",
        chain=DownBlock,
    ),
    "unet.mid": Slot("the middle", "unet", MidBlock),
    "unet.mid.output": Slot("the output of the middle", "unet", name="output", chain=MidBlock),
    "unet.up": Slot("a level on the way up", "unet", UpBlock),
    "unet.up.output": Slot(
        "the output of a level on the way up, before it is upsampled",
        "unet",
        name="output",
        chain=UpBlock,
    ),
    "unet.up.upsample": Slot(
        "the upsampling of a level on the way up", "unet", name="upsample", chain=UpBlock
    ),
    "unet.residual": Slot("two convolutions beside a shortcut", "unet", ResidualBlock),
    "unet.transformer": Slot("transformer blocks on a feature map", "unet", SpatialTransformer),
    "unet.feed_forward": Slot(
        "the network of a transformer block that processes tokens separately",
        "unet",
        GatedFeedForward,
    ),
    "unet.self_attention": Slot("the attention of positions to one another", "unet", SelfAttention),
    "unet.self_attention.attend": Slot(
        "queries, keys and values to the output of the attention",
        "unet",
        Attend,
        within=SelfAttention,
    ),
    "unet.cross_attention": Slot("the attention of positions to the text", "unet", CrossAttention),
    "unet.cross_attention.attend": Slot(
        "queries, keys and values to the output of the attention",
        "unet",
        Attend,
        within=CrossAttention,
    ),
    "unet.linear": Slot("every linear layer", "unet", nn.Linear),
    "unet.conv": Slot("every convolution", "unet", nn.Conv2d),
    "unet.norm": Slot("every normalisation", "unet", (nn.GroupNorm, nn.LayerNorm)),
    "denoise.branches": Slot(
        "the repetition of latents for each pass", "denoise", name="branches", chain=Denoise
    ),
    "denoise.predict": Slot(
        "the prediction of the UNet for all passes", "denoise", name="predict", chain=Denoise
    ),
    "denoise.guidance": Slot(
        "the combination of the passes to one prediction", "denoise", name="guidance", chain=Denoise
    ),
    "denoise.step": Slot("the step of the sampler", "denoise", name="step", chain=Denoise),
    "text_encoder.linear": Slot("every linear layer", "text_encoder", nn.Linear),
    "text_encoder.norm": Slot("every normalisation", "text_encoder", nn.LayerNorm),
    "text_encoder.embedding": Slot(
        "the embedding of each token", "text_encoder", nn.Embedding, name="token"
    ),
    "text_encoder.layer": Slot("each layer of a text encoder", "text_encoder", ClipLayer),
    "text_encoder.output": Slot(
        "the features of whole texts, from each encoder",
        "text_encoder",
        name="output",
        chain=TextOutput,
    ),
    "text_encoder.text": Slot(
        "the text encoder: windows of tokens to the features that the UNet reads",
        "text_encoder",
        name="text_encoder",
        chain=Model,
    ),
    "autoencoder.encode": Slot(
        "images to the mean and log-variance of their latents", "autoencoder", Encoder
    ),
    "autoencoder.decode": Slot("latents to images", "autoencoder", Decoder),
    "autoencoder.linear": Slot("every linear layer", "autoencoder", nn.Linear),
    "autoencoder.conv": Slot("every convolution", "autoencoder", nn.Conv2d),
}
"""The slots of both families; their names are public API and stay when trees change."""
