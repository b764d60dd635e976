"""
LoRA, LoHa, LoKr, DoRA
======================

Low-rank changes of weights, beside a layer or merged into it. LoRA (arXiv:2106.09685) adds a
product of two thin matrices; LoHa (arXiv:2108.06098), LoKr (arXiv:2309.14859) and DoRA
(arXiv:2402.09353) build the change in other ways.
"""

# %%
# A change of weights
# -------------------
# Each kind builds a matrix, which runs as the layer would. It takes facts from the base layer and
# keeps nothing of it.

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refiners_core import Adapter, Chain, Context, Edit, Multiply, Seat, Sum, When
from refiners_core.errors import AdapterError

RANK = 2


class Change(nn.Module, ABC):
    """Adds to the weight of a linear layer or a convolution, and runs as that layer would."""

    def __init__(self, base: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.shape = base.weight.shape
        self.is_linear = isinstance(base, nn.Linear)
        names = ("stride", "padding", "dilation", "groups")
        self.options = {} if self.is_linear else {name: getattr(base, name) for name in names}
        self.rows, self.columns = self.shape[0], math.prod(self.shape[1:])

    @abstractmethod
    def matrix(self) -> Tensor: ...

    def change(self) -> Tensor:
        return self.matrix().view(self.shape)

    def forward(self, x: Tensor) -> Tensor:
        if self.is_linear:
            return F.linear(x, self.change())
        return F.conv2d(x, self.change(), **self.options)


def small(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * 0.2)


class LoraChange(Change):
    """A product of two thin matrices (arXiv:2106.09685, section 4.1)."""

    def __init__(self, base: nn.Linear | nn.Conv2d) -> None:
        super().__init__(base)
        self.up, self.down = small(self.rows, RANK), small(RANK, self.columns)

    def matrix(self) -> Tensor:
        return self.up @ self.down


class LohaChange(Change):
    """The product, entry by entry, of two such products (arXiv:2108.06098, section 2.2)."""

    def __init__(self, base: nn.Linear | nn.Conv2d) -> None:
        super().__init__(base)
        self.first, self.second = LoraChange(base), LoraChange(base)

    def matrix(self) -> Tensor:
        return self.first.matrix() * self.second.matrix()


class LokrChange(Change):
    """A Kronecker product of a small matrix and a larger one (arXiv:2309.14859, section 3.2)."""

    def __init__(self, base: nn.Linear | nn.Conv2d) -> None:
        super().__init__(base)
        f, g = (2 if n % 2 == 0 else 1 for n in (self.rows, self.columns))
        self.left, self.right = small(f, g), small(self.rows // f, self.columns // g)

    def matrix(self) -> Tensor:
        return torch.kron(self.left, self.right)


class DoraChange(LoraChange):
    """A low-rank change of direction, with lengths apart (arXiv:2402.09353, equation 5)."""

    def __init__(self, base: nn.Linear | nn.Conv2d) -> None:
        super().__init__(base)
        changed = base.weight.detach() + self.change().detach()
        lengths = torch.rand(self.rows) + 0.5
        self.gain = nn.Parameter(lengths / changed.flatten(1).norm(dim=1).clamp_min(1e-6))
        bias = torch.zeros(self.rows) if base.bias is None else base.bias.detach().clone()
        self.register_buffer("bias", bias)

    def over(self, per_row: Tensor) -> Tensor:
        return per_row if self.is_linear else per_row[:, None, None]


class Decomposed(Chain):
    """`gain * (W + change) x + bias`, of which the first child gives `W x + bias`."""

    def __init__(self, inner: nn.Module, change: DoraChange, scale: str) -> None:
        super().__init__(inner=inner, change=change)
        self.scale = scale

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        base = self.call(self.inner, context, *inputs)
        scale, change = context.get(self.scale), self.change
        if scale is None:
            return base
        gain, bias = change.over(change.gain), change.over(change.bias)
        low_rank = self.call(change, context, *inputs)
        return base + scale * (gain * (base - bias + low_rank) - (base - bias))


# %%
# The adapter
# -----------
# One wrap for each slot. Outside its span and at scale 0 the key is absent, and the branch does
# not run.


class LowRank(Adapter):
    """Puts a change beside linear layers and convolutions."""

    def __init__(
        self,
        kind: Callable[[Any], Change] = LoraChange,
        slots: Sequence[str] = ("unet.linear", "unet.conv", "text_encoder.linear"),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.kind, self.slots = kind, slots

    def edits(self, model: Any) -> tuple[Edit, ...]:
        places = (model.slot(slot) for slot in self.slots)
        return sum((place.wrap(self.beside, name="change") for place in places), ())

    def beside(self, inner: nn.Module, seat: Seat) -> nn.Module:
        change = self.layer(seat, lambda: self.kind(seat.layer))
        if isinstance(change, DoraChange):
            return Decomposed(inner, change, self.scale_key)
        return Sum(inner, When(self.scale_key, change, Multiply(self.scale_key)))


# %%
# Merging is a replace edit, so the base's tensors are never written to, and unmerging is eject.


class Merged(LowRank):
    """Runs layers whose weights have the changes in them: faster, one at a time."""

    def __init__(self, changes: LowRank, **options: Any) -> None:
        super().__init__(**options)
        parts = changes.own_layers.named_children()
        self.changes = {name: change.change().detach() for name, change in parts}

    def edits(self, model: Any) -> tuple[Edit, ...]:
        places = (model.slot(slot) for slot in self.slots)
        return sum((place.replace(self.merged) for place in places), ())

    def merged(self, seat: Seat) -> nn.Module:
        return self.layer(seat, lambda: self.with_change(seat))

    @torch.no_grad()
    def with_change(self, seat: Seat) -> nn.Module:
        layer = copy.deepcopy(seat.layer)
        if not isinstance(layer, seat.role) or type(layer.weight) is not nn.Parameter:
            weight = getattr(layer, "weight", layer)
            raise AdapterError(
                f"the changes cannot be merged into {seat.path!r}: it is quantised, a "
                f"{type(layer).__name__} with a {type(weight).__name__}.",
                hint="Wear the LoRA beside its layers: changes.inject(model).",
            )
        layer.weight.add_(self.changes[seat.path.replace(".", "/")])
        return layer


# %%
# On a tiny model
# ---------------

if __name__ == "__main__":
    from refiners_core.testing import tiny_model

    torch.manual_seed(0)
    model = tiny_model()
    lora = LowRank(slots=("unet.linear",), key="lora").inject(model)
    print(model.unet.layer("mid.transformer.tokens.blocks.0.self_attention", Chain))

    options = {"steps": 2, "seed": 7, "output": "latents", "progress": False}
    beside = model.generate("a red circle", **options)
    lora.eject()
    merged = Merged(lora, slots=("unet.linear",), key="merged").inject(model)
    difference = (model.generate("a red circle", **options) - beside).abs().max()
    print(f"beside the layers or merged into them: {difference:.0e} apart")
