"""The layout in which autoencoders are published."""

from typing import Final

from refiners_core.layers.layout import ATTENTION_KEYS, RESIDUAL_BLOCK_KEYS
from refiners_core.weights.key_map import KeyMap

_ATTENTION: Final = (
    KeyMap(
        {"norm": "group_norm"},
        older={"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"},
    )
    | ATTENTION_KEYS.under("tokens.attention", "")
)  # fmt: skip
_MIDDLE: Final = RESIDUAL_BLOCK_KEYS.under("resnet_{j}", "resnets.{j}") | _ATTENTION.under(
    "attention", "attentions.0"
)
_ENDS: Final = KeyMap(
    {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}
) | _MIDDLE.under("mid", "mid_block")
_ENCODER: Final = (
    _ENDS
    | RESIDUAL_BLOCK_KEYS.under("down.{i}.resnet_{j}", "down_blocks.{i}.resnets.{j}")
    | KeyMap({"down.{i}.downsample.conv": "down_blocks.{i}.downsamplers.0.conv"})
)
_DECODER: Final = (
    _ENDS
    | RESIDUAL_BLOCK_KEYS.under("up.{i}.resnet_{j}", "up_blocks.{i}.resnets.{j}")
    | KeyMap({"up.{i}.upsample.conv": "up_blocks.{i}.upsamplers.0.conv"})
)
AUTOENCODER_KEYS: Final = (
    KeyMap({"encoder.quant_conv": "quant_conv", "decoder.post_quant_conv": "post_quant_conv"})
    | _ENCODER.under("encoder", "encoder")
    | _DECODER.under("decoder", "decoder")
)
"""The layout of diffusers; the names of attention layers before 2023 are read as well."""
