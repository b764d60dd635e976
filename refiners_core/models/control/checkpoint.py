"""The published file of a ControlNet: its layout, its sizes, and what else it states."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.models.control.layout import (
    CONTROL_KEYS,
    HINT,
    condition_channels,
    ldm_control_keys,
)
from refiners_core.models.unet import UNetConfig
from refiners_core.weights import read
from refiners_core.weights.key_map import KeyMap

PREFIX: Final = "control_model."
"""The prefix of a ControlNet's tensors in the original code, beside which may be a whole model."""
DIFFERENCE: Final = "difference"
"""The key that marks a file of differences from the UNet's weights."""
UNION: Final = "task_embedding"
"""The key that only a union of several control types has."""
_LDM_DOWN: Final = re.compile(r"input_blocks\.(\d+)\.1\.transformer_blocks\.(\d+)\.")
_DOWN: Final = re.compile(r"down_blocks\.(\d+)\.attentions\.\d+\.transformer_blocks\.(\d+)\.")
_MIDDLE: Final = re.compile(
    r"(?:middle_block\.1|mid_block\.attentions\.0)\.transformer_blocks\.(\d+)\."
)
_READS_TEXT: Final = re.compile(r"\.attn2\.to_k\.(?:weight|down)$")
_FAMILIES: Final = {768: "sd15", 1024: "Stable Diffusion 2", 2048: "sdxl"}


@dataclass(frozen=True)
class ControlFile:
    """The tensors of a published ControlNet, and what they say about it."""

    tensors: Mapping[str, Tensor]
    """The tensors by published name, without the prefix `control_model`."""
    config: UNetConfig
    """The sizes of the UNet, with the transformer blocks that the ControlNet has itself."""
    channels: tuple[int, ...]
    """The channels of each level of the image encoder."""
    keys: KeyMap
    """The layout of the tensors."""
    is_difference: bool
    """Whether tensors that the UNet has as well are differences from the UNet's."""
    is_cut: bool
    """Whether the middle has a single residual block, as in the small networks for SDXL."""

    @classmethod
    def read(cls, path: Path, unet: UNetConfig) -> "ControlFile":
        """Reads a file in the layout of diffusers or of the original code.

        Args:
            path: The safetensors file.
            unet: The sizes of the UNet that the ControlNet is for.

        Raises:
            WeightsError: The file is unreadable, not a ControlNet, for another family of models, or
                its numbers are not finite.
        """
        tensors = without_prefix(read(path))
        is_difference = tensors.pop(DIFFERENCE, None) is not None
        channels = condition_channels(tensors)
        is_ldm = f"{HINT}.0.weight" in tensors
        check_text_width(tensors, unet)
        check_finite_weights(tensors)
        config = replace(unet, **_depths(tensors, unet, is_ldm))
        return cls(
            tensors=tensors,
            config=config,
            channels=channels,
            keys=ldm_control_keys(config, len(channels)) if is_ldm else CONTROL_KEYS,
            is_difference=is_difference,
            is_cut=not any(
                key.startswith(("mid_block.resnets.1", "middle_block.2")) for key in tensors
            ),
        )

    def without_tensors(self) -> "ControlFile":
        """Returns the same description without the tensors."""
        return replace(self, tensors={})


def without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of a ControlNet without its prefix and without a model beside it."""
    if not any(key.startswith(PREFIX) for key in tensors):
        return dict(tensors)
    return {
        key.removeprefix(PREFIX): tensor
        for key, tensor in tensors.items()
        if key.startswith(PREFIX) or key == DIFFERENCE
    }


def check_text_width(tensors: Mapping[str, Tensor], unet: UNetConfig) -> None:
    """Checks that attentions to the text read tokens as wide as those of a UNet.

    Raises:
        WeightsError: The tensors are for another family of models.
    """
    width = next(
        (tensors[key].shape[1] for key in tensors if _READS_TEXT.search(key)), unet.text_width
    )
    if width != unet.text_width:
        family = _FAMILIES.get(width)
        origin = f", as those for {family} do" if family else ""
        raise WeightsError(
            f"this ControlNet reads texts of width {width}{origin}; this model's texts have width "
            f"{unet.text_width}.",
            hint="Give one that was trained for this family of models.",
        )


def check_finite_weights(tensors: Mapping[str, Tensor]) -> None:
    """Checks that all numbers are finite.

    Raises:
        WeightsError: A tensor contains infinite numbers or NaN.
    """
    for key, tensor in tensors.items():
        is_number = tensor.is_floating_point() and not tensor.is_meta and tensor.itemsize > 1
        if is_number and not bool(torch.isfinite(tensor.sum(dtype=torch.float32))):
            raise WeightsError(
                f"the file is damaged: the numbers of {key!r} are not all finite.",
                hint="Fetch it again, or ask its author: training diverged.",
            )


def _depths(
    tensors: Mapping[str, Tensor], unet: UNetConfig, is_ldm: bool
) -> dict[str, tuple[int, ...] | int]:
    """Returns the transformer blocks of each level and of the middle, counted in the names."""
    depths = [0] * len(unet.channels)
    mid = 0
    for key in tensors:
        if match := (_LDM_DOWN if is_ldm else _DOWN).match(key):
            number = int(match[1])
            level = _level(number, unet) if is_ldm else number
            if level < len(depths):
                depths[level] = max(depths[level], int(match[2]) + 1)
        elif match := _MIDDLE.match(key):
            mid = max(mid, int(match[1]) + 1)
    return {"depths": tuple(depths), "mid_depth": mid}


def _level(block: int, unet: UNetConfig) -> int:
    """Returns the level of a numbered block of the original code."""
    return sum(block > unet.first_skip(level + 1) for level in range(len(unet.channels) - 1))
