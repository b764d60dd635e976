"""Feature maps that are shrunk inside the UNet, and restored."""

from math import ceil
from typing import Any, Final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from refiners_core import Chain, Context, Layer


class Shrink(Layer):
    """Shrinks a feature map in the first steps (bicubic); later it passes unchanged.

    Args:
        scale: The context key of the scale.
        factor: The factor by which width and height shrink at scale 1.
        until: The share of the steps in which it acts.
    """

    def __init__(self, scale: str, factor: float, until: float) -> None:
        super().__init__()
        self.scale: Final = scale
        self.factor: Final = factor
        self.until: Final = until

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows channels height width"]:
        x, scale = inputs[0], context.get(self.scale)
        if scale is None or context["step"] >= self.until * context["steps"]:
            return x
        factor = self.factor ** float(scale)
        size = [max(1, round(side / factor)) for side in x.shape[-2:]]
        return interpolate(x, size, mode="bicubic")

    def extra_repr(self) -> str:
        return f"{self.scale!r}, factor={self.factor:g}, until={self.until:g}"


class Restore(Layer):
    """Resizes a feature map to that of a skip, if it is smaller (bicubic).

    Args:
        record: The context key of the skip.
    """

    def __init__(self, record: str) -> None:
        super().__init__()
        self.record: Final = record

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows channels height width"]:
        x, size = inputs[0], context[self.record].shape[-2:]
        return x if x.shape[-2:] == size else interpolate(x, size, mode="bicubic")

    def extra_repr(self) -> str:
        return repr(self.record)


class AtFullSize(Chain):
    """Lets other adapters change a shrunk feature map in the size that it has without shrinking.

    Their change is averaged to the size of the map. Without a change the map stays as it is, bit
    for bit.

    Args:
        level: How often the latents were halved here, rounded up.
        inner: The place, with the edits of other adapters.
    """

    inner: nn.Module

    def __init__(self, level: int, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.level: Final = level

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows channels height width"]:
        x: Tensor = inputs[0]
        size = [ceil(side / 2**self.level) for side in context["latents"].shape[-2:]]
        if isinstance(self.inner, nn.Identity) or [*x.shape[-2:]] == size:
            return self.call(self.inner, context, x)
        full = interpolate(x, size, mode="nearest")
        change: Tensor = self.call(self.inner, context, full) - full
        return x + adaptive_avg_pool2d(change, (x.shape[-2], x.shape[-1]))

    def extra_repr(self) -> str:
        return f"level={self.level}"
