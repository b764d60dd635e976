"""Reference-only: pictures attend to a reference."""

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

from refiners_core import Chain, Context, Edit, Seat
from refiners_core.layers import SelfAttention
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.option import number
from refiners_reference.adapter import Reference
from refiners_reference.observation import Trace


class ReferenceOnly(Reference):
    """Lets pictures attend to a reference picture in every self-attention.

    Args:
        attention_weight: Which self-attentions attend to the reference, in 0...1: that share of
            them, the widest first. 0 leaves the pictures as they are.
        options: The arguments of `Reference` and of every adapter.

    Raises:
        AdapterError: `style_fidelity` or `attention_weight` is not a number in 0...1.

    Example:
        >>> ReferenceOnly(name="reference-only").attention_weight
        1.0
    """

    def __init__(self, *, attention_weight: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.attention_weight: Final = number(
            "attention_weight", attention_weight, 0.5, low=0, high=1
        )

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Adds the pass over the reference, and its keys and values to those of attentions."""
        attention = model.slot("unet.self_attention.attend")
        middle = [seat.path for seat in model.slot("unet.mid")]
        # Of equal widths, the middle comes last, as it does in the community pipelines.
        ranked = sorted(
            attention,
            key=lambda seat: (-_width(seat), any(seat.path.startswith(f"{m}.") for m in middle)),
        )
        places = {
            seat.path: place
            for place, seat in enumerate(ranked)
            if place / len(ranked) < self.attention_weight
        }

        def shared(inner: nn.Module, seat: Seat) -> nn.Module:
            return AttendToReference(self.trace(places[seat.path]), inner)

        chosen = attention.where(lambda seat: seat.path in places)
        edits = chosen.wrap(shared, name="reference", stage="inputs") if places else ()
        return (*self.observation(model), *edits)


class AttendToReference(Chain):
    """Records keys and values of the reference, and lets the pictures attend to them as well.

    Args:
        trace: The record of this place.
        attend: The attention.
    """

    attend: nn.Module

    def __init__(self, trace: Trace, attend: nn.Module) -> None:
        super().__init__(attend=attend)
        self.trace: Final = trace
        self.scale_key: Final = trace.scale_key

    def run(self, context: Context, *inputs: Any) -> Tensor:
        if self.trace.is_written(context):
            self.trace.write(context, inputs[1], inputs[2])
            return self.call(self.attend, context, *inputs)
        plain: Tensor = self.call(self.attend, context, *inputs)
        seen = None if context.get(self.scale_key) is None else self.trace.read(context, 2)
        if seen is None:
            return plain
        changed: Tensor = self.call(self.attend, context, *_joined(*inputs, seen=seen))
        return self.trace.mixed(plain, changed, context)

    def extra_repr(self) -> str:
        return f"{self.scale_key!r}, place={self.trace.place}"


def _joined(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, seen: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Returns the inputs of attention with the keys and values of the reference appended."""
    joined = q, torch.cat([k, seen[0]], dim=1), torch.cat([v, seen[1]], dim=1)
    if mask is None:
        return joined
    visible = mask.new_full((*mask.shape[:2], seen[0].shape[1]), mask.dtype == torch.bool)
    return *joined, torch.cat([mask, visible], dim=2)


def _width(seat: Seat) -> int:
    attention = seat.chain
    assert isinstance(attention, SelfAttention), "the slot is of self-attentions"
    return attention.width
