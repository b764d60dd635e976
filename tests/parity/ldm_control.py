"""The names of a ControlNet's tensors in the original code, for those of diffusers."""

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")
_EACH = 3
"""The numbered blocks of a level: two layers and the downsampling."""
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def ldm_name(key: str, blocks: int) -> str:
    """Returns the name of a tensor; `blocks` counts the image encoder's inner convolutions."""
    encoder = "controlnet_cond_embedding."
    rules: list[tuple[str, object]] = [
        (r"^time_embedding\.linear_(\d)", lambda m: f"time_embed.{2 * int(m[1]) - 2}"),
        (r"^add_embedding\.linear_(\d)", lambda m: f"label_emb.0.{2 * int(m[1]) - 2}"),
        (r"^conv_in", "input_blocks.0.0"),
        (
            r"^down_blocks\.(\d+)\.resnets\.(\d+)\.(\w+)",
            lambda m: f"input_blocks.{1 + _EACH * int(m[1]) + int(m[2])}.0.{_RESNET[m[3]]}",
        ),
        (
            r"^down_blocks\.(\d+)\.attentions\.(\d+)",
            lambda m: f"input_blocks.{1 + _EACH * int(m[1]) + int(m[2])}.1",
        ),
        (
            r"^down_blocks\.(\d+)\.downsamplers\.0\.conv",
            lambda m: f"input_blocks.{_EACH * (int(m[1]) + 1)}.0.op",
        ),
        (
            r"^mid_block\.resnets\.(\d)\.(\w+)",
            lambda m: f"middle_block.{2 * int(m[1])}.{_RESNET[m[2]]}",
        ),
        (r"^mid_block\.attentions\.0", "middle_block.1"),
        (r"^controlnet_down_blocks\.(\d+)", r"zero_convs.\1.0"),
        (r"^controlnet_mid_block", "middle_block_out.0"),
        (rf"^{encoder}conv_in", "input_hint_block.0"),
        (rf"^{encoder}blocks\.(\d+)", lambda m: f"input_hint_block.{2 * int(m[1]) + 2}"),
        (rf"^{encoder}conv_out", f"input_hint_block.{2 * blocks + 2}"),
    ]
    for pattern, replacement in rules:
        if re.match(pattern, key):
            return re.sub(pattern, replacement, key)  # type: ignore[arg-type]
    raise KeyError(key)


def ldm_named(tensors: Mapping[str, T]) -> dict[str, T]:
    """Returns tensors of a ControlNet by their names in the original code."""
    blocks = len({key.split(".")[2] for key in tensors if ".blocks." in key and "cond_emb" in key})
    return {ldm_name(key, blocks): tensor for key, tensor in tensors.items()}
