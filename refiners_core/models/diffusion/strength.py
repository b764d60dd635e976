"""The strengths of an adapter in one generation: its scale at every step, place and picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from refiners_core.condition import Condition
from refiners_core.errors import ConditionError
from refiners_core.models.acting import ActingPlace, acting_places, names_at
from refiners_core.scale import Fixed, by_picture, checked_scale, fixed, places_in
from refiners_core.surgery.adapter import Adapter
from refiners_core.tree.context import Context
from refiners_core.tree.memory import Memory
from refiners_core.tree.place import ByPicture, Places, PlaceScale
from refiners_core.tree.row_scale import times

Numbers = tuple[float, ...]
"""A scale for each picture."""


@dataclass(frozen=True)
class Strengths:
    """The scales of one adapter in one generation.

    Without `places` the adapter has one scale a step, for all places and pictures.
    """

    adapter: Adapter
    steps: Sequence[Mapping[str, Numbers]]
    """For each step, the scales by the path of a place; a single one by an empty path."""
    places: Sequence[ActingPlace] = ()
    """The places at which the adapter acts, if its scale differs between places or pictures."""

    def is_active(self, step: int) -> bool:
        """Whether the adapter acts at a step: at some place, in some picture."""
        return any(any(numbers) for numbers in self.steps[step].values())

    @property
    def first(self) -> int:
        """The first step at which the adapter acts; 0 if it never does."""
        return next((step for step in range(len(self.steps)) if self.is_active(step)), 0)

    @property
    def is_ever_active(self) -> bool:
        """Whether the adapter acts at any step."""
        return bool(self.steps) and self.is_active(self.first)


def strengths(
    adapter: Adapter, condition: Condition, model: Any, count: int, steps: int
) -> Strengths:
    """Evaluates the scale of a condition for a generation.

    Args:
        adapter: The worn adapter.
        condition: Its condition.
        model: The model.
        count: The number of pictures.
        steps: The number of steps.

    Raises:
        ConditionError: The scale names a place at which the adapter does not act, has another
            number of scales than there are pictures, or differs between places or pictures though
            no layer of the adapter reads it.
    """
    scale = checked_scale(condition.scale)
    fixed_scales: list[Fixed] = [
        fixed(scale, step / steps) if condition.spans(step, steps) else 0.0 for step in range(steps)
    ]
    if all(isinstance(value, float) for value in fixed_scales):
        return Strengths(adapter, [{"": by_picture(value, (), count)} for value in fixed_scales])
    places = acting_places(model, adapter)
    wanted = [name for value in fixed_scales for name in places_in(value)]
    if not places:
        by = "place" if wanted else "picture"
        raise ConditionError(
            f"{adapter.key} has a scale by {by}, but none of its layers reads the scale.",
            hint=f"Pass one number: Condition({'value, ' * adapter.takes_condition}scale=0.5).",
        )
    names = names_at(model, adapter, places, wanted)
    return Strengths(
        adapter,
        [
            {path: by_picture(value, held, count, adapter.key) for path, held in names.items()}
            for value in fixed_scales
        ],
        places,
    )


class StepScales(NamedTuple):
    """The scales of all adapters at one step, as a context carries them."""

    values: Mapping[str, Any]
    """The scale of each adapter that acts, by its scale key: a 0-d tensor, which is 1 for one with
    scales at places, or a `RowScale`."""
    places: Places | None
    """The scales at places, of the adapters that have some."""

    def without(self, keys: Sequence[str]) -> StepScales:
        """Returns the scales without those of some adapters, by their keys."""
        scale_keys = [f"{key}.scale" for key in keys]
        values = {key: scale for key, scale in self.values.items() if key not in scale_keys}
        return StepScales(values, self.places)

    def scaled(self, factors: Mapping[str, float]) -> StepScales:
        """Returns the scales with those of some adapters multiplied, by their keys; a factor of 0
        leaves the adapter out."""
        if not factors:
            return self
        absent = [key for key, factor in factors.items() if factor == 0]
        values = {
            key: times(scale, factors.get(key.removesuffix(".scale"), 1.0))
            for key, scale in self.without(absent).values.items()
        }
        places = self.places
        if places is not None:
            places = places.without(absent).scaled(factors)
        return StepScales(values, places)

    def context(self, values: Mapping[str, Any], memory: Memory | None = None) -> Context:
        """Returns a new context with these scales and other values."""
        context = Context({**values, **self.values}, memory)
        context._places = self.places
        return context


def read_by_picture(
    read: Callable[[StepScales], Mapping[str, Mapping[str, Tensor]]], scales: Scales, count: int
) -> dict[str, dict[str, Tensor]]:
    """Returns the features of texts where adapters of the text encoder have scales by picture.

    All texts are read for each group of pictures, so that a text is always read in the same batch.

    Args:
        read: Returns the features of all texts for some scales: by context key, a tensor per branch
            with one row or one for each picture.
        scales: The scales of the adapters.
        count: The number of pictures.
    """
    features: dict[str, dict[str, Tensor]] = {}
    groups = scales.pictures_alike("text_encoder", count)
    for pictures in groups:
        for key, branches in read(scales.outside(pictures[0])).items():
            if len(groups) == 1:
                features[key] = dict(branches)
                continue
            rows = features.setdefault(key, {})
            for name, part in branches.items():
                part = part.expand(count, *part.shape[1:])
                rows[name] = rows.get(name, part).clone()
                rows[name][pictures] = part[pictures]
    return features


@dataclass(frozen=True)
class Scales:
    """The scales of all adapters in one generation as tensors.

    Args:
        adapters: The strengths of each.
        dtype: The dtype of the tensors.
        device: The device of the tensors.
    """

    adapters: Sequence[Strengths]
    dtype: torch.dtype
    device: torch.device
    _tensors: dict[Numbers, Tensor] = field(default_factory=dict[Numbers, Tensor])

    def at(self, step: int) -> StepScales:
        """Returns the scales at a step, counted from 0."""
        return self._of(
            [(item, item.steps[step]) for item in self.adapters if item.is_active(step)]
        )

    def outside(self, picture: int | None = None) -> StepScales:
        """Returns the scales for texts and images, which are encoded and decoded outside the steps:
        those of the first step at which each adapter acts.

        Args:
            picture: The picture whose scales are returned; by default those of all pictures.
        """
        first = [(item, item.steps[item.first]) for item in self.adapters]
        if picture is None:
            return self._of(first)
        chosen = slice(picture, picture + 1)
        return self._of(
            [(item, {path: part[chosen] for path, part in step.items()}) for item, step in first]
        )

    def pictures_alike(self, component: str, count: int) -> list[list[int]]:
        """Returns the pictures in groups that have the same scales in a component.

        Args:
            component: The name of the component, such as `text_encoder`.
            count: The number of pictures.
        """
        parts = [
            part
            for item in self.adapters
            for path, part in item.steps[item.first].items()
            if path.startswith((component, f"{component}."))
        ]
        groups: dict[Numbers, list[int]] = {}
        for picture in range(count):
            groups.setdefault(tuple([part[picture] for part in parts]), []).append(picture)
        return list(groups.values())

    def _of(self, active: Sequence[tuple[Strengths, Mapping[str, Numbers]]]) -> StepScales:
        values: dict[str, Tensor] = {}
        blocks: dict[int, dict[str, dict[str, PlaceScale]]] = {}
        for item, numbers in active:
            if not item.places:
                values[item.adapter.scale_key] = self._tensor(numbers[""][:1])
                continue
            # For layers that read it without acting at a place: the adapter is active.
            values[item.adapter.scale_key] = self._tensor((1.0,))
            for place in item.places:
                scales = blocks.setdefault(place.block, {}).setdefault(item.adapter.key, {})
                scales[place.name] = self._at_place(numbers[place.path])
        outside = blocks.pop(0, {})
        return StepScales(values, Places(outside, blocks) if outside or blocks else None)

    def _at_place(self, numbers: Numbers) -> PlaceScale:
        if not any(numbers):
            return None
        if len(set(numbers)) == 1:
            return self._tensor(numbers[:1])
        return ByPicture(self._tensor(numbers), 0 in numbers)

    def _tensor(self, numbers: Numbers) -> Tensor:
        if numbers not in self._tensors:
            values = numbers[0] if len(numbers) == 1 else numbers
            self._tensors[numbers] = torch.tensor(values, dtype=self.dtype, device=self.device)
        return self._tensors[numbers]
