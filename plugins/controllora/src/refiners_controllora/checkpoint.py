"""The published file of a Control-LoRA: low-rank factors, replaced tensors, and new layers."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from refiners_core import Chain
from refiners_core.errors import WeightsError
from refiners_core.models.control import (
    LayerChange,
    SharedControl,
    ldm_control_keys,
    network_path,
    shape_of_change,
    shared_layers,
)
from refiners_core.models.unet import UNet
from refiners_core.weights import KeyMap, MisfitError

MARKER: Final = "lora_controlnet"
"""The key, of an empty tensor, that marks a Control-LoRA."""
Shape = tuple[int, ...]


class LowRankControl(SharedControl):
    """A side network whose changes are low-rank terms and replaced tensors."""

    def published(self) -> Mapping[str, Tensor]:
        """Returns the tensors in the layout of the released files."""
        keys = ldm_control_keys(self.config, len(self.channels))
        tensors = self.published_parts(keys)
        for path, change in self.changed_layers():
            name = keys.published(network_path(path))
            for kind, tensor in change.replaced.items():
                tensors[f"{name}.{kind}"] = tensor.detach()
            if change.low_rank is not None:
                for part, layer in change.low_rank.children_by_name():
                    tensors[f"{name}.{part}"] = layer.get_parameter("weight").detach()
        return {**tensors, MARKER: next(iter(tensors.values())).new_zeros(0)}


def read_changes(
    unet: UNet, tensors: Mapping[str, Tensor], keys: KeyMap
) -> tuple[dict[str, LayerChange], dict[str, Tensor]]:
    """Reads the change of each layer that a side network shares with a UNet.

    A layer's weight is the UNet's plus `up @ down`, without an alpha, or replaced by a tensor that
    is stored whole; other tensors, such as biases and those of norms, are replaced. What the file
    lacks stays the UNet's.

    Args:
        unet: The UNet.
        tensors: The tensors of the file by published name.
        keys: The layout of a ControlNet in the original code.

    Returns:
        The changes by path in the UNet, and the remaining tensors of the file.

    Raises:
        WeightsError: A layer lacks one of its two factors.
        MisfitError: Tensors have other shapes than the UNet's.
    """
    rest = {key: tensor for key, tensor in tensors.items() if key != MARKER}
    misshapen: dict[str, tuple[Shape, Shape]] = {}
    changes: dict[str, LayerChange] = {}
    for path, layer in shared_layers(unet):
        name, replaced = keys.published(network_path(path)), dict[str, Tensor]()
        for kind, ours in layer.named_parameters(recurse=False):
            if (tensor := rest.pop(f"{name}.{kind}", None)) is None:
                continue
            shape = shape_of_change(ours, path, unet)
            if tensor.shape != shape:
                misshapen[f"{name}.{kind}"] = tuple(tensor.shape), shape
            replaced[kind] = tensor.to(unet.device, unet.dtype)
        factors = {part: rest.pop(f"{name}.{part}", None) for part in ("up", "down")}
        low_rank = None
        if any(tensor is not None for tensor in factors.values()):
            up, down = (_present(name, factors, part).flatten(1) for part in ("up", "down"))
            ours = shape_of_change(next(layer.parameters(recurse=False)), path, unet)
            expected = (ours[0], len(down)), (len(down), torch.Size(ours[1:]).numel())
            wrong = {
                f"{name}.{part}": (tuple(tensor.shape), shape)
                for part, tensor, shape in zip(("up", "down"), (up, down), expected, strict=True)
                if tensor.shape != shape
            }
            misshapen |= wrong
            if not wrong:
                low_rank = factor_layers(layer, ours, len(down))
                for part, tensor in (("up", up), ("down", down)):
                    beside = low_rank.layer(part)
                    shape = beside.get_parameter("weight").shape
                    value = tensor.reshape(shape).to(unet.device, unet.dtype)
                    beside.weight = nn.Parameter(value)
        if replaced or low_rank is not None:
            changes[path] = LayerChange(replaced=replaced, low_rank=low_rank)
    if misshapen:
        raise MisfitError(f"{len(tensors)} tensors for {type(unet).__name__}", (), (), misshapen)
    return changes, rest


def untrained_changes(unet: UNet, rank: int) -> dict[str, LayerChange]:
    """Returns changes that change nothing: factors whose product is zero, and copies of the rest.

    Args:
        unet: The UNet.
        rank: The rank of the factors, less where a layer is smaller.
    """
    changes: dict[str, LayerChange] = {}
    for path, layer in shared_layers(unet):
        low_rank, replaced = None, dict[str, Tensor]()
        for kind, tensor in layer.named_parameters(recurse=False):
            shape = shape_of_change(tensor, path, unet)
            if len(shape) == 1:
                replaced[kind] = tensor.detach().clone()
                continue
            size = min(rank, shape[0], torch.Size(shape[1:]).numel())
            low_rank = factor_layers(layer, shape, size)
            nn.init.zeros_(low_rank.layer("up", nn.Module).get_parameter("weight"))
        changes[path] = LayerChange(replaced=replaced, low_rank=low_rank)
    return changes


def factor_layers(layer: nn.Module, shape: Shape, rank: int) -> Chain:
    """Builds the layers down to a rank and up again, beside a layer of the base.

    Args:
        layer: The layer: linear or a convolution.
        shape: The shape of its weight as a side network reads it.
        rank: The rank.
    """
    if isinstance(layer, nn.Conv2d):
        (height, width), (down, across) = layer.kernel_size, layer.stride
        assert not isinstance(layer.padding, str), "layers of a UNet are padded by numbers"
        above, beside = layer.padding
        convolution = nn.Conv2d(
            shape[1], rank, (height, width), (down, across), (above, beside), bias=False
        )
        return Chain(down=convolution, up=nn.Conv2d(rank, shape[0], 1, bias=False))
    return Chain(
        down=nn.Linear(shape[1], rank, bias=False), up=nn.Linear(rank, shape[0], bias=False)
    )


def _present(name: str, factors: Mapping[str, Tensor | None], part: str) -> Tensor:
    """Returns a factor of a layer.

    Raises:
        WeightsError: The file lacks it.
    """
    tensor = factors[part]
    if tensor is None:
        other = "down" if part == "up" else "up"
        raise WeightsError(
            f"the Control-LoRA is incomplete: {name!r} has {other!r}, but not {part!r}.",
            hint="Fetch it again.",
        )
    return tensor
