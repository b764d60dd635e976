"""The layout in which diffusers publishes ControlNets."""

from collections.abc import Mapping
from itertools import count, takewhile
from typing import Final

from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.models.unet import UNET_ENCODER_KEYS
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


def condition_channels(tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Returns the channels of each level of the image encoder, from published tensors.

    Raises:
        WeightsError: The tensors are not those of a ControlNet.
    """
    prefix = "controlnet_cond_embedding"
    keys = [f"{prefix}.conv_in.weight"]
    halving = (f"{prefix}.blocks.{2 * i + 1}.weight" for i in count())
    keys += takewhile(tensors.__contains__, halving)
    if keys[0] not in tensors:
        examples = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise WeightsError(
            f"these are not the weights of a ControlNet: no {keys[0]!r}, but {examples}, "
            "for example.",
            hint="Give the diffusion_pytorch_model.safetensors of a ControlNet.",
        )
    return tuple([len(tensors[key]) for key in keys])
