"""Scales by place: what a layer of an adapter does where its adapter has a scale for its place.

A generation puts the scales into the context, beside the values. The layers that an adapter made
carry a `Place`; it binds the scale of the place to the adapter's scale key while the layer runs, so
that the layer computes as with one scale for all places.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from refiners_core.errors import ConditionError
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer, run_child
from refiners_core.tree.memory import Memory


class ByPicture:
    """A scale for each picture, at least two of which differ.

    Args:
        scales: The scales.
        has_zeros: Whether the adapter does not act in some picture.
    """

    __slots__ = ("has_zeros", "scales")

    def __init__(self, scales: Tensor, has_zeros: bool) -> None:
        self.scales = scales
        self.has_zeros = has_zeros


PlaceScale = Tensor | ByPicture | None
"""The scale at a place: 0-d, or by picture; None where the adapter is skipped."""


class Places(NamedTuple):
    """The scales at the places of a tree.

    Places in a block that is compiled are named from the block on, so that all blocks of a kind can
    share one compiled function.
    """

    scales: Mapping[str, Mapping[str, PlaceScale]]
    """For each key of an adapter, the scales by the names of places outside compiled blocks."""
    blocks: Mapping[int, Mapping[str, Mapping[str, PlaceScale]]]
    """The same inside each compiled block, by the identity of the block."""

    def without(self, keys: Collection[str]) -> Places:
        """Returns the scales without those of some adapters, by their keys."""

        def kept(scales: Mapping[str, Any]) -> dict[str, Any]:
            return {key: value for key, value in scales.items() if key not in keys}

        return Places(
            kept(self.scales), {block: kept(scales) for block, scales in self.blocks.items()}
        )

    def scaled(self, factors: Mapping[str, float]) -> Places:
        """Returns the scales with those of some adapters multiplied, by their keys."""

        def changed(scales: Mapping[str, Mapping[str, PlaceScale]]) -> dict[str, Any]:
            return {
                key: {name: _times(scale, factors[key]) for name, scale in by_name.items()}
                if key in factors
                else by_name
                for key, by_name in scales.items()
            }

        return Places(
            changed(self.scales), {block: changed(scales) for block, scales in self.blocks.items()}
        )


def _times(scale: PlaceScale, factor: float) -> PlaceScale:
    if isinstance(scale, ByPicture):
        return ByPicture(scale.scales * factor, scale.has_zeros)
    return None if scale is None else scale * factor


class Place:
    """The place of a layer that an adapter made, as the layer itself knows it.

    It names layers instead of holding them, because the layer may outlive the tree.

    Args:
        key: The key of the adapter.
        name: The name of the place; see `Places`.
        inner: The path, from the layer that was made, of the layer that runs without the adapter;
            None if it has none.
        is_beside: Whether the layer runs before or after its seat, so that without the adapter the
            inputs pass unchanged.
    """

    __slots__ = ("inner", "is_beside", "key", "name")

    def __init__(self, key: str, name: str, inner: tuple[str, ...] | None, is_beside: bool) -> None:
        self.key: Final = key
        self.name: Final = name
        self.inner: Final = inner
        self.is_beside: Final = is_beside

    def run(self, child: Layer, context: Context, inputs: tuple[Any, ...]) -> Any:
        """Runs the layer of this place with the scale that the context has for the place.

        Raises:
            ConditionError: The place cannot have a scale for each picture.
        """
        scales = context._places.scales.get(self.key)
        if scales is None or self.name not in scales:
            return child.run(context, *inputs)
        scale = scales[self.name]
        if scale is None:
            return self._skip(child, context, inputs)
        if isinstance(scale, ByPicture):
            return self._run_by_picture(child, context, scale, inputs)
        return self._run(child, context, scale, inputs)

    def _run(self, child: Layer, context: Context, scale: Tensor, inputs: tuple[Any, ...]) -> Any:
        # Not a value: a compiled block that writes values is compiled for their number.
        outside = context._bound
        context._bound = {**(outside or {}), f"{self.key}.scale": scale}
        output = child.run(context, *inputs)
        context._bound = outside
        return output

    def _skip(self, child: Layer, context: Context, inputs: tuple[Any, ...]) -> Any:
        """Runs the tree as if the adapter had not made the layer."""
        if self.is_beside:
            return inputs[0] if len(inputs) == 1 else inputs
        if self.inner is None:  # the layer replaced what was there, and finds no scale
            with context._without(f"{self.key}."):
                return child.run(context, *inputs)
        layer: nn.Module = child
        for name in self.inner:
            layer = layer.__dict__["_modules"][name]
        return run_child(layer, context, *inputs)

    def _run_by_picture(
        self, child: Layer, context: Context, scale: ByPicture, inputs: tuple[Any, ...]
    ) -> Any:
        x, count = inputs[0] if inputs else None, len(scale.scales)
        if not isinstance(x, Tensor) or x.ndim == 0 or len(x) % count:
            got = f"{len(x)} rows" if isinstance(x, Tensor) and x.ndim else type(x).__name__
            raise ConditionError(
                f"{self.key} has scales for {count} pictures, but at {self.name} a layer gets "
                f"{got}.",
                hint="Pass one scale for all pictures, or generate them one by one.",
            )
        rows = scale.scales.repeat(len(x) // count).view(-1, *[1] * (x.ndim - 1))
        if not scale.has_zeros:
            return self._run(child, context, rows, inputs)
        # Inside a compiled block no new context is made: its keys, which differ from block to
        # block, would be guards. No layer of such a block writes values that others read.
        beside = context
        if not torch.compiler.is_compiling():
            name = f"{self.name} without {self.key}"
            beside = context.scope(memory=context.memory.part(name))
        bare = self._skip(child, beside, inputs)
        output = self._run(child, context, rows, inputs)
        if beside is not context:
            written = beside.keys()
            for key in written:
                mine, other = context.get(key), beside[key]
                if mine is not other and not isinstance(other, Memory):  # each pass has its own
                    context[key] = self._merged(mine, other, scale.scales)
        return self._merged(output, bare, scale.scales)

    def _merged(self, output: Any, bare: Any, scales: Tensor) -> Any:
        """Returns `output`, with the rows of `bare` in pictures where the scale is 0."""
        if output is bare:
            return output
        if isinstance(output, tuple) and isinstance(bare, tuple) and len(output) == len(bare):
            return tuple([self._merged(a, b, scales) for a, b in zip(output, bare, strict=True)])
        if (
            not isinstance(output, Tensor)
            or not isinstance(bare, Tensor)
            or not _have_rows(output, bare, len(scales))
        ):
            raise ConditionError(
                f"{self.key} does not act on single pictures at {self.name}.",
                hint="Pass one scale for all pictures.",
            )
        rows = max(len(output), len(bare), len(scales))
        is_off = (scales == 0).repeat(rows // len(scales))
        return torch.where(is_off.view(-1, *[1] * (output.ndim - 1)), bare, output)


def _have_rows(output: Tensor, bare: Tensor, count: int) -> bool:
    """Whether two outputs have equal shapes, with as many rows for each picture, or a single row
    for all of them."""
    if output.ndim == 0 or output.shape[1:] != bare.shape[1:]:
        return False
    several = {len(output), len(bare)} - {1}
    return len(several) < 2 and not any(rows % count for rows in several)


@contextmanager
def in_block(block: nn.Module, context: Context) -> Generator[tuple[Any, ...]]:
    """Enters a compiled block: the context has the scales at its places until the end.

    An adapter with one scale for the whole block gets it as it gets any scale, and the block
    computes as without scales by place.

    Args:
        block: The block.
        context: The context of the call, which has places.

    Yields:
        The pattern of the scales that remain: blocks that print alike and have one pattern can
        share a compiled function.
    """
    outside = context._places
    scales: dict[str, Mapping[str, PlaceScale]] = {}
    restored: dict[str, Any] = {}
    hidden: list[str] = []
    for key, by_name in outside.blocks.get(id(block), {}).items():
        first = next(iter(by_name.values()))
        if isinstance(first, ByPicture) or any(scale is not first for scale in by_name.values()):
            scales[key] = by_name
        elif first is None:
            hidden.append(f"{key}.")
        else:
            restored[f"{key}.scale"] = context.get(f"{key}.scale")
            context[f"{key}.scale"] = first
    pattern = [
        (key, name, getattr(scale, "has_zeros", scale is None))
        for key, by_name in scales.items()
        for name, scale in by_name.items()
    ]
    context._places = Places(scales, {}) if scales else None
    try:
        with context._without(*hidden):
            yield tuple(pattern)
    finally:
        context._places = outside
        for key, scale in restored.items():
            context[key] = scale
