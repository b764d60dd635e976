"""Copies of layers with offsets added to their weights."""

import torch
from torch import Tensor, nn

from refiners_core import merging_copy


def with_offsets(
    inner: nn.Module, offset: nn.Module, strength: float, base: nn.Module, path: str, key: str
) -> nn.Module:
    """Returns a copy of a layer with offsets added to its weights.

    A convolution whose offset reads more channels reads those too; its own weights are zero there.

    Args:
        inner: The base layer, or the copy of another merged adapter.
        offset: The offsets of weight and bias, as a layer of the same class.
        strength: Their strength.
        base: The base layer.
        path: The path of the layer, for messages.
        key: The key of the adapter, for messages.

    Raises:
        AdapterError: Another adapter wraps the layer inside the merged one, or the layer keeps its
            weight in another form.
    """
    twin = merging_copy(inner, base, path, key)
    for name, change in offset.named_parameters():
        weight = inner.get_parameter(name)
        twin._parameters[name] = nn.Parameter(_sum(weight, change, strength), requires_grad=False)
    if isinstance(twin, nn.Conv2d):
        twin.in_channels = twin.weight.shape[1]
    return twin


def _sum(weight: Tensor, change: Tensor, strength: float) -> Tensor:
    total = strength * change.detach().float()
    if weight.ndim > 1 and change.shape[1] > weight.shape[1]:
        missing = change.shape[1] - weight.shape[1]
        weight = torch.cat([weight, weight.new_zeros(len(weight), missing, *weight.shape[2:])], 1)
    return (weight.detach().float() + total).to(weight.dtype)
