"""What is asked about: an adapter, a model for it, and how the two are run."""

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
"""How a model is run to see what it does: given conditions as `generate` takes them."""


def generated(model: Any, conditions: Mapping[Adapter, Any]) -> Tensor:
    """Generates two small steps with guidance and returns latents."""
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
    """Stands beside every linear layer of a tree, to see whether another adapter minds."""

    def edits(self, model: Chain) -> Iterable[Edit]:
        """Adds a small linear of its own to each."""

        def beside(inner: nn.Module, seat: Seat) -> nn.Module:
            layer = seat.layer
            assert isinstance(layer, nn.Linear), "selected as such"
            return Sum(inner, self.layer(seat, lambda: _small(layer)))

        return select(model).of(nn.Linear).wrap(beside, name="neighbour")


def _small(like: nn.Linear) -> nn.Linear:
    layer = nn.Linear(like.in_features, like.out_features, bias=False)
    nn.init.constant_(layer.weight, 0.01)
    return layer


@dataclass(frozen=True)
class AdapterCase:
    """An adapter, and what the contract needs to know to be asked of it.

    Both callables make a new one at each call, and keep none.

    Example:
        >>> AdapterCase(Neighbour, is_switched=False).targets
    """

    make: Callable[[], Adapter]
    """Makes the adapter, worn by nothing."""
    model: Callable[[], Any] = tiny_model
    """Makes the model, or any tree."""
    condition: Any = None
    """What a generation tells the adapter; None if it takes nothing."""
    targets: Sequence[tuple[str, str]] | None = None
    """The slots and stages that its manifest declares; None to ask nothing about them."""
    run: Run = generated
    """How the model is run; a tree that does not generate needs its own."""
    beside: Callable[[], Adapter] = Neighbour
    """Makes another adapter that the same model can wear."""
    is_switched: bool = True
    """Whether a generation can leave it out; one that ignores its scale always acts."""
    is_visible: bool = True
    """Whether what `run` returns is another with it."""

    def conditions(self, adapter: Adapter) -> dict[Adapter, Any]:
        """Returns what a generation is told so that the adapter acts."""
        return {adapter: self.condition} if adapter.takes_condition else {}

    def left_out(self, adapter: Adapter) -> list[dict[Adapter, Any]]:
        """Returns every way to say that the adapter does not act this time."""
        value = self.condition.value if isinstance(self.condition, Condition) else self.condition
        return [{adapter: None}, {adapter: Condition(value, scale=0.0)}]

    def bound(self) -> tuple[Any, Adapter]:
        """Returns a bare model and an adapter that was built for it.

        Weights that begin at zero, and would hide what the adapter does, are given values.
        """
        model, adapter = self.model(), self.make()
        adapter.inject(model).eject()
        noise = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for weight in adapter.parameters():
                if weight.device.type == "cpu" and not weight.any():
                    weight.copy_(torch.randn(weight.shape, generator=noise) * 0.1)
        return model, adapter


def bits(value: Any) -> Any:
    """Returns a value as something that is equal where it is the same, bit for bit."""
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return str(value.dtype), tuple(value.shape), flat.numpy().tobytes()
    if isinstance(value, list | tuple):
        return tuple(map(bits, value))
    return value.tobytes() if hasattr(value, "tobytes") else value
