"""The case that the contract checks: an adapter, a model for it, and a way to run both."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from refiners_core.condition import Condition
from refiners_core.surgery.adapter import Adapter
from refiners_core.surgery.selection import Edit, select
from refiners_core.surgery.tree_index import Seat
from refiners_core.testing.tiny import tiny_model
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Sum

Run = Callable[[Any, Mapping[Adapter, Any]], Any]
"""A function that runs a model with conditions, as `generate` takes them, and returns its
output."""


def generated(model: Any, conditions: Mapping[Adapter, Any]) -> Tensor:
    """Returns the latents of two images after two steps with guidance."""
    return model.generate(
        "a red circle",
        conditions=conditions,
        count=2,
        steps=2,
        guidance=3.0,
        seed=7,
        output="latents",
        progress=False,
    )


class Neighbour(Adapter):
    """An adapter beside every linear layer of a tree, to test another adapter in company."""

    def edits(self, model: Chain) -> Iterable[Edit]:
        """Adds a small linear layer beside each."""

        def beside(inner: nn.Module, seat: Seat) -> nn.Module:
            layer = seat.layer
            assert isinstance(layer, nn.Linear), "the selection is of linear layers"
            return Sum(inner, self.layer(seat, lambda: _small(layer)))

        return select(model).of(nn.Linear).wrap(beside, name="neighbour")


def _small(like: nn.Linear) -> nn.Linear:
    layer = nn.Linear(like.in_features, like.out_features, bias=False)
    nn.init.constant_(layer.weight, 0.01)
    return layer


@dataclass(frozen=True)
class AdapterCase:
    """An adapter, and the facts that the contract needs to check it.

    Each callable makes a new object at each call and keeps no reference to it.

    Example:
        >>> AdapterCase(Neighbour, is_switched=False).targets
    """

    make: Callable[[], Adapter]
    """Makes the adapter, not worn."""
    model: Callable[[], Any] = tiny_model
    """Makes the model, or any other tree."""
    condition: Any = None
    """The condition that a generation passes to the adapter; None if it takes none."""
    targets: Sequence[tuple[str, str]] | None = None
    """The slots and stages that its manifest declares; None skips their check."""
    run: Run = generated
    """Runs the model; a tree that does not generate needs another function."""
    beside: Callable[[], Adapter] = Neighbour
    """Makes another adapter that the same model can wear."""
    is_switched: bool = True
    """Whether a generation can leave the adapter out; one that ignores its scale always acts."""
    is_visible: bool = True
    """Whether the adapter changes the output of `run`."""

    def conditions(self, adapter: Adapter) -> dict[Adapter, Any]:
        """Returns the conditions of a generation in which the adapter acts."""
        is_given = adapter.needs_condition or self.condition is not None
        return {adapter: self.condition} if adapter.takes_condition and is_given else {}

    def left_out(self, adapter: Adapter) -> list[dict[Adapter, Any]]:
        """Returns the conditions of every way to leave the adapter out of a generation."""
        value = self.condition.value if isinstance(self.condition, Condition) else self.condition
        return [{adapter: None}, {adapter: Condition(value, scale=0.0)}]

    def bound(self) -> tuple[Any, Adapter]:
        """Returns a bare model and an adapter that was built for it.

        Weights that start at zero, and would hide the effect of the adapter, get random values.
        """
        model, adapter = self.model(), self.make()
        self.bind(adapter, model)
        return model, adapter

    def bind(self, adapter: Adapter, model: Any) -> None:
        """Builds an adapter for a bare model, and gives weights that are zero random values."""
        adapter.inject(model).eject()
        noise = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for weight in adapter.parameters():
                if weight.device.type == "cpu" and not weight.any():
                    weight.copy_(torch.randn(weight.shape, generator=noise) * 0.1)


def bits(value: Any) -> Any:
    """Returns an object that compares equal exactly if the value is the same, bit for bit."""
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return str(value.dtype), tuple(value.shape), flat.numpy().tobytes()
    if isinstance(value, list | tuple):
        return tuple(map(bits, value))
    return value.tobytes() if hasattr(value, "tobytes") else value
