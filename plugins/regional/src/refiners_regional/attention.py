"""Attention to the texts of regions, each within its mask."""

from typing import Any, Final

from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context
from refiners_core.layers import mask_of_tokens


class RegionalAttention(Chain):
    """Runs an attention to the text once for the whole picture and once for each region.

    A region's output counts within its mask. All weights are shared, so that everything that acts
    in the attention acts in all regions.

    Args:
        adapter: The adapter whose values it reads.
        base: The share of the prompt of the whole picture inside regions.
        inner: The attention.
    """

    inner: nn.Module

    def __init__(self, adapter: Adapter, base: float, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.scale: Final = adapter.scale_key
        self.texts: Final = adapter.context_key("text")
        self.masks: Final = adapter.context_key("masks")
        self.base: Final = base

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows tokens features"]:
        whole: Tensor = self.call(self.inner, context, *inputs)
        scale, masks = context.get(self.scale), context.get(self.masks)
        if scale is None or masks is None:
            return whole
        shares = mask_of_tokens(masks, whole.shape[1], self.masks) * (1 - self.base)
        change: Any = 0
        for i in range(masks.shape[1]):
            scope = context.scope(memory=context.memory.part(f"{self.masks}.{i}"))
            scope["text"] = context[f"{self.texts}.{i}"]
            region: Tensor = self.call(self.inner, scope, *inputs)
            change = change + shares[..., i : i + 1] * (region - whole)
        return whole + scale * change

    def extra_repr(self) -> str:
        return f"{self.scale!r}, base={self.base:g}"
