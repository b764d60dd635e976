"""The layout of single files: all parts of a model under the names of the original code."""

from typing import Final

from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.unet.original import unet_keys
from refiners_core.models.vae import AutoencoderConfig
from refiners_core.tree.chain import Chain
from refiners_core.weights import LINEAR_AS_CONV, KeyMap

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
