"""The layout of single files: all parts of a model under the names of the original code."""

from typing import Final

from refiners_core.layers.layout import SPATIAL_TRANSFORMER_KEYS
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.unet import UNetConfig
from refiners_core.models.vae import AutoencoderConfig
from refiners_core.tree.chain import Chain
from refiners_core.weights import LINEAR_AS_CONV, KeyMap

_UNET_BLOCK: Final = KeyMap(
    {
        "shortcut": "skip_connection",
        "body.norm_1": "in_layers.0",
        "body.conv_1": "in_layers.2",
        "body.shift.project": "emb_layers.1",
        "body.norm_2": "out_layers.0",
        "body.conv_2": "out_layers.3",
    }
)
_AUTOENCODER_BLOCK: Final = KeyMap(
    {
        "shortcut": "nin_shortcut",
        "body.norm_1": "norm1",
        "body.conv_1": "conv1",
        "body.norm_2": "norm2",
        "body.conv_2": "conv2",
    }
)
_AUTOENCODER_MIDDLE: Final = (
    _AUTOENCODER_BLOCK.under("resnet_0", "block_1")
    | KeyMap(
        {
            "attention.norm": "attn_1.norm",
            "attention.tokens.attention.project.to_q": "attn_1.q",
            "attention.tokens.attention.project.to_k": "attn_1.k",
            "attention.tokens.attention.project.to_v": "attn_1.v",
            "attention.tokens.attention.to_out": "attn_1.proj_out",
        },
        transforms={"attention.tokens.attention": LINEAR_AS_CONV},
    )
    | _AUTOENCODER_BLOCK.under("resnet_1", "block_2")
)
_AUTOENCODER_ENDS: Final = KeyMap(
    {"conv_in": "conv_in", "norm_out": "norm_out", "conv_out": "conv_out"}
) | _AUTOENCODER_MIDDLE.under("mid", "mid")


def unet_keys(config: UNetConfig) -> KeyMap:
    """Returns the layout of a UNet in the original code, which numbers the blocks of all levels."""
    keys = KeyMap(
        {
            "time.embed.linear_1": "time_embed.0",
            "time.embed.linear_2": "time_embed.2",
            "time.picture.linear_1": "label_emb.0.0",
            "time.picture.linear_2": "label_emb.0.2",
            "conv_in": "input_blocks.0.0",
            "norm_out": "out.0",
            "conv_out": "out.2",
        }
    )
    levels = len(config.channels)
    for level in range(levels):
        first = config.first_skip(level) + 1
        for i in range(config.layers[level]):
            keys |= _unet_layer(f"down.{level}", i, f"input_blocks.{first + i}")
        down = f"input_blocks.{first + config.layers[level]}.0.op"
        keys |= KeyMap({f"down.{level}.downsample.conv": down})
    keys |= _UNET_BLOCK.under("mid.resnet_0", "middle_block.0")
    keys |= SPATIAL_TRANSFORMER_KEYS.under("mid.transformer", "middle_block.1")
    keys |= _UNET_BLOCK.under("mid.resnet_1", "middle_block.2")
    block = 0
    for i, level in enumerate(reversed(range(levels))):
        for j in range(config.layers[level] + 1):
            keys |= _unet_layer(f"up.{i}", j, f"output_blocks.{block}")
            block += 1
        position = 2 if config.depths[level] else 1
        up = f"output_blocks.{block - 1}.{position}.conv"
        keys |= KeyMap({f"up.{i}.upsample.conv": up})
    return keys


def autoencoder_keys(config: AutoencoderConfig) -> KeyMap:
    """Returns the layout of an autoencoder in the original code; its decoder counts backwards."""
    encoder = (
        _AUTOENCODER_ENDS
        | _AUTOENCODER_BLOCK.under("down.{i}.resnet_{j}", "down.{i}.block.{j}")
        | KeyMap({"down.{i}.downsample.conv": "down.{i}.downsample.conv"})
    )
    decoder = _AUTOENCODER_ENDS
    for i, level in enumerate(reversed(range(len(config.channels)))):
        decoder |= _AUTOENCODER_BLOCK.under(f"up.{i}.resnet_{{j}}", f"up.{level}.block.{{j}}")
        decoder |= KeyMap({f"up.{i}.upsample.conv": f"up.{level}.upsample.conv"})
    return (
        KeyMap({"encoder.quant_conv": "quant_conv", "decoder.post_quant_conv": "post_quant_conv"})
        | encoder.under("encoder", "encoder")
        | decoder.under("decoder", "decoder")
    )


def single_file_keys(model: LatentDiffusion) -> KeyMap:
    """Returns the layout of a whole model as a single file."""
    return (
        unet_keys(model.unet.config).under("unet", "model.diffusion_model")
        | autoencoder_keys(model.autoencoder.config).under("autoencoder", "first_stage_model")
        | model.family.single_file_text_keys.under("text_encoder", "")
        | KeyMap({}, ignored=_NO_WEIGHTS)
    )


class Parts(Chain):
    """The components of a model that a single file holds, shared with the model.

    Args:
        model: The model.
    """

    def __init__(self, model: LatentDiffusion) -> None:
        super().__init__(
            unet=model.unet, autoencoder=model.autoencoder, text_encoder=model.text_encoder
        )


def _unet_layer(ours: str, i: int, theirs: str) -> KeyMap:
    return _UNET_BLOCK.under(f"{ours}.resnet_{i}", f"{theirs}.0") | SPATIAL_TRANSFORMER_KEYS.under(
        f"{ours}.transformer_{i}", f"{theirs}.1"
    )


# Noise schedules, markers (read or refused in `markers`), training averages, losses.
_NO_WEIGHTS: Final = tuple(
    f"{prefix}{pattern}"
    for prefix in ("", "*.")
    for pattern in (
        "alphas_cumprod*",
        "betas",
        "log_one_minus_alphas_cumprod",
        "posterior_*",
        "sqrt_*",
        "logvar",
        "scale_factor",
        "denoiser.*",
        "loss.*",
        "global_step",
        "v_pred",
        "ztsnr",
    )
)
