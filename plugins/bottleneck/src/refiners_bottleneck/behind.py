"""Adapters whose layers run behind the attention and the feed-forward networks of a decoder."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from typing import Any, Final

from torch import nn

from refiners_bottleneck.config import PLACES
from refiners_core import (
    Adapter,
    Chain,
    Edit,
    Multiply,
    Passthrough,
    Residual,
    Seat,
    Selection,
    SetContext,
    When,
    select,
)

SLOTS: Final = {"mh_adapter": "decoder.attention", "output_adapter": "decoder.feed_forward"}
"""The places, keys of `PLACES`, and the beginnings of their slots."""
_LAST: Final = {"mh_adapter": "to_out", "output_adapter": "contract"}
"""The last linear layer of each place."""
_NORM: Final = "norm_output"
"""The normalisation of the output of a place, where a family has one."""

Spot = tuple[int, str]
"""A layer, from 0, and a place in it: a key of `PLACES`."""


class Behind(Adapter):
    """Adds what layers of the adapter compute to the outputs of layers of a decoder.

    A subclass builds the layers in `build` by `put`. A layer takes the output of its seat. In the
    context, under `stream`, it finds what attention or the feed-forward network starts from, before
    it is normalised.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.spots: dict[str, Spot] = {}  # by the names of own layers
        self.streams: frozenset[str] = frozenset()  # the places whose layers read the stream

    @property
    def stream(self) -> str:
        """The context key of what attention or the feed-forward network starts from."""
        return self.context_key("stream")

    def put(self, model: Any, spot: Spot, layer: nn.Module) -> tuple[str, Spot]:
        """Puts a layer behind a place, and returns its name among the layers of the adapter."""
        seat = seats(model, spot[1])[spot[0]]
        self.layer(seat, lambda: layer)
        return seat.path.replace(".", "/"), spot

    def edits(self, model: Any) -> Iterable[Edit]:
        """Adds the layers behind their places, and keeps what these start from if a layer reads
        it."""
        for place, slot in SLOTS.items():
            layers = sorted(layer for layer, other in self.spots.values() if other == place)
            if not layers:
                continue
            if place in self.streams:
                starts = model.slot(f"{slot}.input")
                chosen = Selection(model, tuple([starts[i] for i in layers]), starts.question)
                yield from chosen.wrap(self._recorded, stage="inputs", name="stream")
            ends = seats(model, place)
            chosen = Selection(model, tuple([ends[i] for i in layers]), ends.question)
            yield from chosen.wrap(self._added, stage="output", name="bottleneck")

    def _recorded(self, inner: nn.Module, seat: Seat) -> Chain:
        keep = When(self.scale_key, SetContext(self.stream))
        return Chain(stream=Passthrough(keep), inner=inner)

    def _added(self, inner: nn.Module, seat: Seat) -> Chain:
        layer = self.layer(seat, _missing)
        scaled = When(self.scale_key, change=layer, scale=Multiply(self.scale_key))
        return Chain(inner=inner, added=Residual(scaled))


def seats(model: Any, place: str) -> Selection:
    """Returns the places whose outputs an adapter changes, one for each layer of the model.

    Where outputs are normalised, AdapterHub's adapters come before the normalisation.
    """
    if len(select(model).named(_NORM)):
        return model.slot("decoder.linear").named(_LAST[place])
    return model.slot(f"{SLOTS[place]}.output")


def norm_of_sum(model: Any, place: str) -> nn.Module | None:
    """Returns the normalisation of the sum that an adapter reads, where outputs are normalised.

    AdapterHub takes that of the last layer for all: its hooks look the layer up when they run,
    after the loop that made them (adapters 1.3.0, `init_bottleneck`).
    """
    norms = select(model).named(_NORM)
    if not len(norms):
        return None
    norm = copy.deepcopy(norms[len(norms) - len(PLACES) + [*PLACES].index(place)].layer)
    for name, value in [*norm.named_parameters(recurse=False)]:  # not a weight of the adapter
        delattr(norm, name)
        norm.register_buffer(name, value.detach().clone())
    return norm


def published_names(model: Any) -> tuple[str, str]:
    """Returns the published names of the blocks of a model, and of what is around them."""
    layer = next(iter(model.published_places("decoder.linear")["decoder"]))
    match = re.match(r"(.+?)\.0\.", layer)
    assert match is not None, "blocks are published by number"
    return match[1], match[1].rpartition(".")[0]


def _missing() -> nn.Module:
    raise AssertionError("layers are built in build()")
