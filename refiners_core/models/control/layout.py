"""The layouts in which ControlNets are published: diffusers' and the original code's (LDM)."""

from collections.abc import Mapping
from itertools import count, takewhile
from typing import Final

from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.models.unet import UNET_ENCODER_KEYS, UNetConfig
from refiners_core.models.unet.original import unet_keys
from refiners_core.weights.key_map import KeyMap

CONTROL_KEYS: Final = UNET_ENCODER_KEYS.under("network", "") | KeyMap(
    {
        "network.stem.conv_in": "conv_in",
        "network.outputs.skip_{i}.zero_conv": "controlnet_down_blocks.{i}",
        "network.outputs.mid.zero_conv": "controlnet_mid_block",
        "encoder.conv_in": "controlnet_cond_embedding.conv_in",
        "encoder.blocks.{i}.conv": "controlnet_cond_embedding.blocks.{i}",
        "encoder.conv_out": "controlnet_cond_embedding.conv_out",
    }
)
"""The layout of a `ControlNetModel` of diffusers."""
HINT: Final = "input_hint_block"
"""The prefix of the image encoder in the original code."""
ENCODER: Final = "controlnet_cond_embedding"
"""The prefix of the image encoder in diffusers."""


def ldm_control_keys(config: UNetConfig, levels: int) -> KeyMap:
    """Returns the layout of a ControlNet in the original code, without `control_model`.

    Args:
        config: The sizes of the UNet.
        levels: The levels of the image encoder, whose convolutions the code numbers in a row.
    """
    blocks = 2 * (levels - 1)
    hint = {f"encoder.blocks.{i}.conv": f"{HINT}.{2 * i + 2}" for i in range(blocks)}
    return unet_keys(config).under("network", "") | KeyMap(
        {
            "network.stem.conv_in": "input_blocks.0.0",
            "network.outputs.skip_{i}.zero_conv": "zero_convs.{i}.0",
            "network.outputs.mid.zero_conv": "middle_block_out.0",
            "encoder.conv_in": f"{HINT}.0",
            "encoder.conv_out": f"{HINT}.{2 * blocks + 2}",
            **hint,
        }
    )


def condition_channels(tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Returns the channels of each level of the image encoder, from published tensors.

    Args:
        tensors: Tensors by their names in diffusers or, without `control_model`, the original code.

    Raises:
        WeightsError: The tensors are not those of a ControlNet, or it reads images of other than
            three channels.
    """
    is_ldm = f"{HINT}.0.weight" in tensors
    first = f"{HINT}.0.weight" if is_ldm else f"{ENCODER}.conv_in.weight"
    if first not in tensors:
        examples = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise WeightsError(
            f"these are not the weights of a ControlNet: no {first!r}, but {examples}, "
            "for example.",
            hint="Give the diffusion_pytorch_model.safetensors of a ControlNet.",
        )
    if (channels := tensors[first].shape[1]) != 3:
        plural = "s" * (channels > 1)
        raise WeightsError(
            f"this ControlNet reads pictures with {channels} channel{plural} instead of 3; such "
            "networks are not supported.",
            hint="Give one that was trained on RGB pictures.",
        )
    halving = (
        f"{HINT}.{4 * i + 4}.weight" if is_ldm else f"{ENCODER}.blocks.{2 * i + 1}.weight"
        for i in count()
    )
    keys = takewhile(tensors.__contains__, halving)
    return tuple([len(tensors[key]) for key in (first, *keys)])
