"""The layouts in which UNets are published."""

from typing import Final

from refiners_core.layers.layout import RESIDUAL_BLOCK_KEYS, SPATIAL_TRANSFORMER_KEYS
from refiners_core.weights.key_map import KeyMap

UNET_ENCODER_KEYS: Final = (
    KeyMap(
        {
            "time.embed.linear_1": "time_embedding.linear_1",
            "time.embed.linear_2": "time_embedding.linear_2",
            "time.picture.linear_1": "add_embedding.linear_1",
            "time.picture.linear_2": "add_embedding.linear_2",
            "conv_in": "conv_in",
            "down.{i}.downsample.conv": "down_blocks.{i}.downsamplers.0.conv",
        }
    )
    | RESIDUAL_BLOCK_KEYS.under("down.{i}.resnet_{j}", "down_blocks.{i}.resnets.{j}")
    | SPATIAL_TRANSFORMER_KEYS.under("down.{i}.transformer_{j}", "down_blocks.{i}.attentions.{j}")
    | RESIDUAL_BLOCK_KEYS.under("mid.resnet_{j}", "mid_block.resnets.{j}")
    | SPATIAL_TRANSFORMER_KEYS.under("mid.transformer", "mid_block.attentions.0")
)
"""The layout of the time embedding, the way down and the middle, which ControlNets share."""

UNET_KEYS: Final = (
    UNET_ENCODER_KEYS
    | KeyMap(
        {
            "up.{i}.upsample.conv": "up_blocks.{i}.upsamplers.0.conv",
            "norm_out": "conv_norm_out",
            "conv_out": "conv_out",
        }
    )
    | RESIDUAL_BLOCK_KEYS.under("up.{i}.resnet_{j}", "up_blocks.{i}.resnets.{j}")
    | SPATIAL_TRANSFORMER_KEYS.under("up.{i}.transformer_{j}", "up_blocks.{i}.attentions.{j}")
)
"""The layout of a `UNet2DConditionModel` of diffusers."""
