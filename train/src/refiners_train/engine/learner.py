"""The weights that are trained, and those that stay frozen."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from refiners_core import Adapter
from refiners_core.errors import AdapterError


class Learners:
    """The trained weights of an adapter; everything else of the model is frozen.

    The trained weights become float32, whatever the dtype of the base.

    Args:
        base: The weights of the base by name, as they were before it wore the adapter.
        adapter: The adapter.

    Raises:
        AdapterError: The adapter has no weights to train.
    """

    def __init__(self, base: Mapping[str, Tensor], adapter: Adapter) -> None:
        self.adapter = adapter
        self.modules: Sequence[nn.Module] = adapter.learners()
        adapter.requires_grad_(False)
        for weight in base.values():
            weight.requires_grad_(False)
        for module in self.modules:
            module.float().requires_grad_(True)
        named = {
            name: weight for name, weight in adapter.named_parameters() if weight.requires_grad
        }
        if not named:
            raise AdapterError(
                f"{adapter.key} has no weights to train.",
                hint="Name an adapter with weights: refiners list.",
            )
        self.names: Sequence[str] = [*named]
        """The names of the weights in the adapter."""
        self.weights: list[Tensor] = [*named.values()]
        """The weights, in the order of their names."""
        self.frozen: Mapping[str, Tensor] = {
            **base,
            **{
                f"adapter.{name}": weight
                for name, weight in (*adapter.named_parameters(), *adapter.named_buffers())
                if not weight.requires_grad
            },
        }
        """The frozen weights of the model and of the adapter by name."""

    @property
    def count(self) -> int:
        """The number of trained numbers."""
        return sum(weight.numel() for weight in self.weights)


def base_weights(model: nn.Module) -> Mapping[str, Tensor]:
    """Returns the weights and buffers of a model that wears nothing, by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Returns the sha256 of the names and the bits of tensors."""
    sha256 = hashlib.sha256()
    for name in sorted(tensors):
        sha256.update(name.encode())
        value = tensors[name].detach().cpu().contiguous()
        sha256.update(value.flatten().view(torch.uint8).numpy().data if value.numel() else b"")
    return sha256.hexdigest()
