"""A scale for each row of a batch, so that each row has the adapters of its own."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from refiners_core.errors import ConditionError


class RowScale(NamedTuple):
    """The scale of an adapter in each row of a batch, under its scale key in the context.

    An adapter whose `scales_rows` is True reads it. Its layers compute their change for the rows in
    `active` alone, and add it to these rows.

    Example:
        >>> scale = RowScale.of([0.0, 0.5, 1.0])
        >>> scale.active.tolist(), scale.values.tolist()
        ([1, 2], [0.5, 1.0])
    """

    scales: Float[Tensor, "rows"]
    """The scale of each row."""
    active: Int[Tensor, "active"]
    """The rows whose scale is not 0."""
    values: Float[Tensor, "active"]
    """The scales of these rows."""
    whole: Float[Tensor, ""] | None = None
    """The scale where it is the same in all rows, and not 0."""

    @classmethod
    def of(
        cls,
        scales: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Returns the scale of rows.

        Args:
            scales: A number for each row.
            dtype: The dtype of the network.
            device: The device of the network.
        """
        active = [row for row, scale in enumerate(scales) if scale != 0]
        is_whole = len({*scales}) == 1 and len(active) == len(scales)
        return cls(
            torch.tensor(scales, dtype=dtype, device=device),
            torch.tensor(active, dtype=torch.long, device=device),
            torch.tensor([scales[row] for row in active], dtype=dtype, device=device),
            torch.tensor(scales[0], dtype=dtype, device=device) if is_whole else None,
        )

    def check(self, rows: int, key: str) -> None:
        """Raises if a layer gets another number of rows.

        Args:
            rows: The number of rows that the layer gets.
            key: The scale key, for messages.

        Raises:
            ConditionError: The numbers differ.
        """
        if rows != len(self.scales):
            raise ConditionError(
                f"{key} has scales for {len(self.scales)} rows, but a layer gets {rows}.",
                hint="Pass one scale for all rows, Condition(scale=1.0).",
            )


def keys_by_row(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the keys of scales that differ between rows."""
    return tuple(
        [
            key
            for key, value in values.items()
            if isinstance(value, RowScale) and value.whole is None
        ]
    )


def times(scale: Any, factor: float) -> Any:
    """Returns a scale, a tensor or a `RowScale`, multiplied by a number."""
    if isinstance(scale, RowScale):
        whole = None if scale.whole is None else scale.whole * factor
        scales, values = scale.scales * factor, scale.values * factor
        return scale._replace(scales=scales, values=values, whole=whole)
    return scale * factor
