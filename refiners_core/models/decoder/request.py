"""The facts of one generation of text that adapters read, and what they add to its context."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from refiners_core.condition import Condition
from refiners_core.errors import ConditionError
from refiners_core.models.diffusion.conditioning import match_conditions
from refiners_core.models.diffusion.strength import Scales, StepScales, strengths
from refiners_core.scale import Ramp, by_picture, checked_scale, is_off
from refiners_core.surgery.adapter import Adapter
from refiners_core.tree.row_scale import RowScale

COND: Final = "cond"
"""The only branch of a generation of text."""


@dataclass(frozen=True)
class TextRequest:
    """The facts of one generation of text that an adapter's `encode` may need; fields may be
    added."""

    model: Any
    """The model that generates."""
    count: int
    """The number of texts, which is the number of rows."""
    dtype: torch.dtype
    """The dtype of the network, to which the tensors of `encode` are cast."""
    device: torch.device
    """The device of the network, to which the tensors of `encode` are moved."""
    branches: tuple[str, ...] = (COND,)
    """The only pass of the network."""
    prompts: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """Under `cond`, the prompt of each row; empty for prompts of tokens."""
    scales: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The scales of the adapters that act, by context key: a 0-d tensor, which is 1 where the scale
    differs between places, or a `RowScale`."""
    row_scales: Mapping[str, Mapping[str, Sequence[float]]] = field(
        default_factory=dict[str, Mapping[str, Sequence[float]]]
    )
    """The same in each row: by context key, then by the path of a place, or by an empty path for an
    adapter with one scale."""

    def acts_in(self, adapter: Adapter, row: int) -> bool:
        """Whether an adapter acts in a row, at any place."""
        scales = self.row_scales.get(adapter.scale_key, {})
        return any(numbers[row] for numbers in scales.values())

    def tokens_before(self, row: int) -> int:
        """Returns the number of tokens that adapters put before the text of a row."""
        counts = ((adapter, adapter.tokens_before) for adapter in self.model.adapters)
        return sum(count for adapter, count in counts if count and self.acts_in(adapter, row))


class Matched(NamedTuple):
    """The adapters that act in a generation."""

    active: list[tuple[Adapter, Condition]]
    """The adapters, with their conditions."""
    scales: StepScales
    request: TextRequest
    """The generation, with the scales."""


def conditions_of(request: TextRequest, conditions: Any) -> Matched:
    """Returns the adapters that act with their conditions, and their scales.

    Args:
        request: The generation.
        conditions: The `conditions` of the call.

    Raises:
        ConditionError: A worn adapter lacks its condition, or cannot use it.
    """
    matched = [
        (item.adapter, item.condition)
        for item in match_conditions(request.model.adapters, conditions)
    ]
    for adapter, condition in matched:
        _check(adapter, condition)
    active = [pair for pair in matched if not is_off(checked_scale(pair[1].scale))]
    by_row = {
        adapter.scale_key: rows
        for adapter, condition in active
        if (rows := _row_scale(adapter, condition, request)) is not None
    }
    items = [
        strengths(*pair, request.model, request.count, 1)
        for pair in active
        if pair[0].scale_key not in by_row
    ]
    scales = Scales(items, request.dtype, request.device).outside()
    scales = StepScales({**scales.values, **by_row}, scales.places)
    row_scales = {
        **{item.adapter.scale_key: item.steps[0] for item in items},
        **{key: {"": tuple(rows.scales.tolist())} for key, rows in by_row.items()},
    }
    request = replace(request, scales=scales.values, row_scales=row_scales)
    for adapter, condition in active:
        adapter.check(condition.value, request)
    return Matched(active, scales, request)


@torch.no_grad()
def encoded(request: TextRequest, active: Sequence[tuple[Adapter, Condition]]) -> dict[str, Tensor]:
    """Returns the context values that adapters encode their conditions to.

    Args:
        request: The generation.
        active: The adapters that act, with their conditions.

    Raises:
        ConditionError: `encode` refuses the condition, or its tensors do not fit the context.
    """
    values: dict[str, Tensor] = {}
    for adapter, condition in active:
        if condition.value is None and not adapter.reads_prompts:
            continue
        for key, branches in adapter.encode(condition.value, request).items():
            tensor = branches.get(COND)
            if not key.startswith(f"{adapter.key}.") or tensor is None:
                raise ConditionError(
                    f"{adapter.key} encodes its condition as {key!r} for {', '.join(branches)}.",
                    hint='Return {self.context_key("name"): {"cond": tensor}} from encode().',
                )
            if len(tensor) not in (1, request.count):
                raise ConditionError(
                    f"{key!r} has {len(tensor)} rows for {request.count} texts.",
                    hint="Pass one value for all texts, or one for each.",
                )
            dtype = request.dtype if tensor.is_floating_point() else None
            tensor = tensor.to(request.device, dtype)
            values[key] = tensor.expand(request.count, *tensor.shape[1:])
    return values


def _row_scale(adapter: Adapter, condition: Condition, request: TextRequest) -> RowScale | None:
    """Returns the scale of an adapter by row; None if it differs between places, or if the layers
    of the adapter do not read it.

    Raises:
        ConditionError: There are more or fewer scales than texts.
    """
    scale: Any = checked_scale(condition.scale)
    if not adapter.scales_rows or isinstance(scale, dict):
        return None
    if isinstance(scale, tuple) and any(isinstance(row, dict) for row in scale):  # pyright: ignore
        return None
    if isinstance(scale, tuple) and len(scale) != request.count:  # pyright: ignore
        raise ConditionError(
            f"{adapter.key} has {len(scale)} scales for {request.count} texts.",  # pyright: ignore
            hint="Pass one scale for all texts, or one for each.",
        )
    numbers = by_picture(scale, (), request.count, adapter.key)
    # A model without weights has no numbers, but its arguments are checked all the same.
    device = torch.device("cpu") if request.device.type == "meta" else request.device
    return RowScale.of(numbers, request.dtype, device)


def _check(adapter: Adapter, condition: Condition) -> None:
    """Raises if a condition asks for what only images have.

    Raises:
        ConditionError: The condition has a range of steps, a schedule, a mask or a preprocessor.
    """
    scale = checked_scale(condition.scale)
    is_whole = (condition.start, condition.end) == (0, 1)
    if isinstance(scale, Ramp) or callable(scale) or not is_whole:
        raise ConditionError(
            f"{adapter.key} has a scale that changes on the way, but texts have no steps.",
            hint="Pass one number, Condition(scale=0.5), without start= and end=.",
        )
    if condition.mask is not None or condition.preprocess is not False:
        raise ConditionError(
            f"{adapter.key} is given a mask or a preprocessor, but texts have no pictures.",
            hint="Leave mask= and preprocess= out.",
        )
