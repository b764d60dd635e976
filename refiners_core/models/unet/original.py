"""The names of UNets in the original code (LDM), which numbers the blocks of all levels."""

from typing import Final

from refiners_core.layers.layout import SPATIAL_TRANSFORMER_KEYS
from refiners_core.models.unet.config import UNetConfig
from refiners_core.weights.key_map import KeyMap

_BLOCK: Final = KeyMap(
    {
        "shortcut": "skip_connection",
        "body.norm_1": "in_layers.0",
        "body.conv_1": "in_layers.2",
        "body.shift.project": "emb_layers.1",
        "body.norm_2": "out_layers.0",
        "body.conv_2": "out_layers.3",
    }
)


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
            keys |= _layer(f"down.{level}", i, f"input_blocks.{first + i}")
        down = f"input_blocks.{first + config.layers[level]}.0.op"
        keys |= KeyMap({f"down.{level}.downsample.conv": down})
    keys |= _BLOCK.under("mid.resnet_0", "middle_block.0")
    keys |= SPATIAL_TRANSFORMER_KEYS.under("mid.transformer", "middle_block.1")
    keys |= _BLOCK.under("mid.resnet_1", "middle_block.2")
    block = 0
    for i, level in enumerate(reversed(range(levels))):
        for j in range(config.layers[level] + 1):
            keys |= _layer(f"up.{i}", j, f"output_blocks.{block}")
            block += 1
        position = 2 if config.depths[level] else 1
        up = f"output_blocks.{block - 1}.{position}.conv"
        keys |= KeyMap({f"up.{i}.upsample.conv": up})
    return keys


def _layer(ours: str, i: int, theirs: str) -> KeyMap:
    return _BLOCK.under(f"{ours}.resnet_{i}", f"{theirs}.0") | SPATIAL_TRANSFORMER_KEYS.under(
        f"{ours}.transformer_{i}", f"{theirs}.1"
    )
