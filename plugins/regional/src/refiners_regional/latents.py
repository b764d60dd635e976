"""A pass of the network for each region, with its text and its adapters."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context
from refiners_core.models.diffusion import COND, branch_rows
from refiners_regional.text import TEXTS, tiled


class RegionalPasses(Chain):
    """Predicts once for the whole picture and once for each region, and joins them by masks.

    Args:
        adapter: The adapter whose values it reads.
        base: The share of the prompt of the whole picture inside regions.
        inner: The network.
    """

    inner: nn.Module

    def __init__(self, adapter: Adapter, base: float, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.scale: Final = adapter.scale_key
        self.masks: Final = adapter.context_key("masks")
        self.texts: Final = {name: adapter.context_key(name) for name in TEXTS}
        self.factors: Final = adapter.context_key("factors")
        self.covered: Final = adapter.context_key("covered")
        self.base: Final = base

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows channels height width"]:
        scale, masks = context.get(self.scale), context.get(self.masks)
        if scale is None or masks is None:
            return self.call(self.inner, context, *inputs)
        regions = range(masks.shape[1])
        start = f"{self.factors}."
        factors: dict[str, list[float]] = {
            key.removeprefix(start): tensors[COND][0].tolist()
            for key, tensors in context["conditions"].items()
            if key.startswith(start)
        }

        def predicted(place: int) -> Tensor:
            by_key = {key: values[place] for key, values in factors.items()}
            return self.call(self.inner, self._scope(context, place, by_key), *inputs)

        # Where regions cover the picture, its own prompt counts nowhere.
        is_whole = self.covered not in context or scale.ndim > 0 or bool(scale != 1)
        whole = predicted(-1) if is_whole else torch.zeros_like(inputs[0])
        change: Any = 0
        for i in regions:
            change = change + masks[:, i : i + 1] * (predicted(i) - whole)
        return whole + scale * (1 - self.base) * change

    def extra_repr(self) -> str:
        return f"{self.scale!r}, base={self.base:g}"

    def _scope(self, context: Context, place: int, factors: Mapping[str, float]) -> Context:
        """Returns the context of the pass of a region, or of the whole picture with -1."""
        absent = [key for key, factor in factors.items() if factor == 0]
        starts = tuple(f"{key}." for key in absent)
        names: Sequence[str] = context["branches"]
        conditions: dict[str, Mapping[str, Tensor]] = {
            key: tensors
            for key, tensors in context["conditions"].items()
            if not key.startswith(starts)
        }
        name = "whole" if place < 0 else str(place)
        changed: list[str] = []
        for key, prefix in self.texts.items():
            texts = conditions.get(f"{prefix}.{name}")
            if key in conditions and texts is not None:
                conditions[key] = tiled({**conditions[key], **texts})
                changed.append(key)
        if place < 0 and not changed and not absent:
            return context
        memory = context.memory if place < 0 else context.memory.part(f"{self.masks}.{name}")
        scope = context.scope(memory=memory, without=absent, scales=factors)
        scope["conditions"] = conditions
        count = len(context["latents"])
        for key in changed:
            scope[key] = branch_rows(key, conditions[key], names, count)
        return scope
