"""Batches: the examples of one step, as tensors with a row for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Examples of an image base, in rows."""

    texts: Sequence[str]
    """The prompt of each row."""
    pictures: Float[Tensor, "rows 3 height width"] | None = None
    """The pictures in 0...1; None if `latents` are given."""
    latents: Float[Tensor, "rows channels latent_height latent_width"] | None = None
    """The latents, scaled as the base reads them."""
    conditions: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The values of each input of the adapter by name: a tensor with a row for each example, or a
    list."""
    masks: Float[Tensor, "rows 1 height width"] | None = None
    """The weight (0...1) of each pixel in the loss."""
    time_ids: Float[Tensor, "rows 6"] | None = None
    """Height and width of the file, top and left of the crop, height and width of the picture."""
    is_prior: Bool[Tensor, "rows"] | None = None
    """Whether each row is a prior example; None if none is."""
    weights: Float[Tensor, "rows"] | None = None
    """The weight of each row in the loss; None if all are 1."""

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self, start: int, end: int) -> Self:
        """Returns the rows from `start` up to `end`."""
        part = slice(start, end)
        return replace(
            self,
            **{
                name: None if value is None else value[part]
                for name, value in vars(self).items()
                if name != "conditions"
            },
            conditions={name: value[part] for name, value in self.conditions.items()},
        )

    def to(self, device: torch.device) -> Self:
        """Returns the batch with its tensors on a device; adapters place the conditions."""

        def moved(value: Any) -> Any:
            return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

        fields = {name: moved(value) for name, value in vars(self).items() if name != "conditions"}
        return replace(self, **fields)


@runtime_checkable
class Batched(Protocol):
    """A source that makes a whole batch faster than its examples one by one."""

    def batch(self, indices: Sequence[int], epoch: int) -> Batch:
        """Returns a batch, whose rows are those of `example` for each index.

        Args:
            indices: The positions in the source.
            epoch: The number of the epoch from 0.
        """
        ...


def stacked(examples: Sequence[Any]) -> Batch:
    """Returns a batch of examples, all of one size.

    Args:
        examples: At least one `Example`, or objects of others with its fields.
    """
    first = examples[0]
    pictures = None if first.picture is None else torch.stack([it.picture for it in examples])  # pyright: ignore
    latents = None if first.latents is None else torch.stack([it.latents for it in examples])  # pyright: ignore
    masks = None
    if any(example.mask is not None for example in examples):
        like = (
            pictures
            if pictures is not None
            else next(it.mask for it in examples if it.mask is not None)[None]
        )
        full = torch.ones(1, *like.shape[-2:])
        masks = torch.stack([full if it.mask is None else it.mask for it in examples])
    return Batch(
        texts=[example.text for example in examples],
        pictures=pictures,
        latents=latents,
        conditions={
            name: _together([example.conditions[name] for example in examples])
            for name in first.conditions
        },
        masks=masks,
        time_ids=_time_ids(examples),
        is_prior=torch.tensor([example.is_prior for example in examples])
        if any(example.is_prior for example in examples)
        else None,
        weights=torch.tensor([example.weight for example in examples])
        if any(example.weight != 1 for example in examples)
        else None,
    )


def _together(values: Sequence[Any]) -> Any:
    return torch.stack([*values]) if isinstance(values[0], Tensor) else [*values]


def _time_ids(examples: Sequence[Any]) -> Tensor | None:
    if all(example.original is None and example.corner == (0, 0) for example in examples):
        return None
    rows: list[list[float]] = []
    for example in examples:
        like = example.picture if example.picture is not None else example.mask
        size = example.original if like is None else tuple(like.shape[-2:])
        assert size is not None, "a source of latents states the original size"
        rows.append([*map(float, (*(example.original or size), *example.corner, *size))])
    return torch.tensor(rows)
