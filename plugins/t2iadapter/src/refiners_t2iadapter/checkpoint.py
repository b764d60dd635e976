"""The published files of T2I-Adapters: diffusers' keys, the authors' keys, and sizes."""

import re
from collections.abc import Mapping
from typing import Final

from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.models.unet import UNetConfig
from refiners_t2iadapter.feature_network import FeatureConfig

WRAPPERS: Final = ("state_dict.", "module.", "adapter.")
"""Prefixes that all keys of a file may share, the outermost first."""
_MARK: Final = re.compile(r"body\..+\.block1\.")
"""The beginning of a key that every T2I-Adapter has."""
_BLOCK: Final = re.compile(r"body\.(\d+)\.(block[12]|in_conv)\.(weight|bias)")
_LIGHT_BLOCK: Final = re.compile(r"body\.(\d+)\.body\.(\d+)\.(.+)")


def is_xl(config: UNetConfig) -> bool:
    """Whether the first level of a UNet has no attention, as in Stable Diffusion XL.

    There the first map has half the size of the latents, and the last is added after the mid block.
    """
    return len(config.channels) > 1 and config.depths[0] == 0


def map_widths(config: UNetConfig) -> tuple[int, ...]:
    """Returns the channels of each feature map for a UNet."""
    return (*config.channels, *config.channels[-1:]) if is_xl(config) else config.channels


def halving(config: UNetConfig) -> tuple[int, ...]:
    """Returns the indices of the feature maps that are half as large as the previous one."""
    levels = len(config.channels)
    return tuple(range(2, levels)) if is_xl(config) else tuple(range(1, levels))


def as_diffusers(tensors: Mapping[str, Tensor], maps: int) -> dict[str, Tensor]:
    """Returns tensors under diffusers' keys.

    Args:
        tensors: Tensors under diffusers' or the authors' keys, possibly with `WRAPPERS`.
        maps: The number of feature maps; the authors' keys number all residual blocks in one
            sequence.

    Raises:
        WeightsError: The tensors are not those of a T2I-Adapter.
    """
    names = {key: key for key in tensors}
    for prefix in WRAPPERS:
        if names and all(name.startswith(prefix) for name in names.values()):
            names = {key: name.removeprefix(prefix) for key, name in names.items()}
    if not any(_MARK.match(name) for name in names.values()):
        is_style = any(name.startswith("style_embedding") for name in names.values())
        style = "is a T2I-Adapter for style, which reads features of CLIP"
        kind = style if is_style else f"holds {next(iter(names), None)!r}"
        raise WeightsError(
            f"this file {kind}: it is not a T2I-Adapter that makes maps of a picture.",
            hint='Load it with the adapter for style: load_adapter("t2i-style", model, file=...).'
            if is_style
            else "Give the diffusion_pytorch_model of a repository such as "
            "TencentARC/t2i-adapter-canny-sdxl-1.0.",
        )
    numbers = {int(match[1]) for name in names.values() if (match := _BLOCK.fullmatch(name))}
    each = max(1, len(numbers) // maps)
    return {f"adapter.{_renamed(name, each)}": tensors[key] for key, name in names.items()}


def _renamed(name: str, each: int) -> str:
    if match := _LIGHT_BLOCK.fullmatch(name):
        return f"body.{match[1]}.resnets.{match[2]}.{match[3]}"
    if match := _BLOCK.fullmatch(name):
        level, block = divmod(int(match[1]), each)
        inside = "" if match[2] == "in_conv" else f"resnets.{block}."
        return f"body.{level}.{inside}{match[2]}.{match[3]}"
    return name


def config_of(tensors: Mapping[str, Tensor], unet: UNetConfig, reduction: int) -> FeatureConfig:
    """Returns the sizes of a network for a UNet, read off published shapes.

    Args:
        tensors: Tensors under diffusers' keys.
        unet: The UNet's sizes.
        reduction: The pixels per position of the latents, along one side.

    Raises:
        WeightsError: The network is for another family of models, for latents of another size, or
            for a picture with other channels.
    """
    is_light = "adapter.conv_in.weight" not in tensors
    first = tensors.get("adapter.body.0.in_conv.weight" if is_light else "adapter.conv_in.weight")
    outputs = "out_conv" if is_light else "resnets.0.block1"
    expected, widths = map_widths(unet), list[int]()
    while (last := tensors.get(f"adapter.body.{len(widths)}.{outputs}.weight")) is not None:
        widths.append(len(last))
    if first is None or not widths:
        raise WeightsError(
            "this T2I-Adapter lacks its first convolution or its residual blocks.",
            hint="Fetch the file again: it is incomplete.",
        )
    block = reduction * 2 if is_xl(unet) else reduction
    _check_stem(first.shape[1], block, is_xl(unet))
    if tuple(widths) != expected:
        raise WeightsError(
            f"this T2I-Adapter makes maps of {_listed(widths)} channels, this model needs "
            f"{_listed(expected)}.",
            hint="Give one that was trained for this family of models.",
        )
    residuals = {key.split(".")[4] for key in tensors if key.startswith("adapter.body.0.resnets.")}
    return FeatureConfig(
        picture_channels=first.shape[1] // block**2,
        block=block,
        widths=expected,
        residuals=len(residuals),
        halving=halving(unet),
        is_light=is_light,
    )


def _check_stem(channels: int, block: int, is_for_xl: bool) -> None:
    other = block // 2 if is_for_xl else block * 2
    if channels in (block**2, 3 * block**2):
        return
    if channels in (other**2, 3 * other**2):
        families = ("Stable Diffusion XL", "Stable Diffusion 1.5")
        theirs, ours = families[::-1] if is_for_xl else families
        raise WeightsError(
            f"this T2I-Adapter reads squares of {other} x {other} pixels, as those for {theirs} "
            f"do; those for this model, of the family of {ours}, read {block} x {block}.",
            hint=f"Give one that was trained for {ours}.",
        )
    raise WeightsError(
        f"this T2I-Adapter reads {channels} numbers per square of pixels; this model's squares of "
        f"{block} x {block} have {block**2} in one channel, {3 * block**2} in three.",
        hint="Give one that reads pictures of 1 or 3 channels, for latents of this size.",
    )


def _listed(widths: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, widths))
