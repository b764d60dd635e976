"""The low-rank update of a layer: a product of two factors (arXiv:2106.09685, section 4.1)."""

from typing import Any, Final

from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Chain, Context, Seat


class LowRank(Chain):
    """Computes `alpha / rank * up(down(x))`, the low-rank update of a layer.

    Args:
        down: Linear layer or convolution to `rank` features; a convolution has the kernel, stride
            and padding of the updated layer.
        up: Linear layer or 1x1 convolution from `rank` features.
        alpha: The strength in the file, before division by the rank.
        channels: The number of input channels that it reads, from the first; all by default.
    """

    def __init__(
        self,
        down: nn.Linear | nn.Conv2d,
        up: nn.Linear | nn.Conv2d,
        *,
        alpha: float,
        channels: int | None = None,
    ) -> None:
        # Attributes before children: a chain without state is built faster.
        self.alpha: Final = alpha
        self.rank: Final = down.weight.shape[0]
        self.factor: Final = alpha / self.rank
        first = {} if channels is None else {"first": FirstChannels(channels)}
        super().__init__(**first, down=down, up=up)

    def run(self, context: Context, *inputs: Any) -> Any:
        return super().run(context, *inputs) * self.factor

    def extra_repr(self) -> str:
        return f"rank={self.rank}, alpha={self.alpha:g}"


class FirstChannels(nn.Module):
    """Keeps the first channels of a feature map.

    Inpainting UNets read a mask and a picture after the latents; a LoRA for the plain UNet reads
    the latents alone.

    Args:
        channels: The number of channels to keep.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels: Final = channels

    def forward(self, x: Float[Tensor, "rows all *map"]) -> Float[Tensor, "rows first *map"]:
        """Drops the channels after the first ones."""
        return x[:, : self.channels]

    def extra_repr(self) -> str:
        return str(self.channels)


class WithLowRank(Chain):
    """Adds a low-rank update to the output of a layer, if the context has its scale.

    Args:
        inner: The layer, with the edits of other adapters.
        change: The low-rank update.
        scale: The context key of the scale, a 0-d tensor; without a value the layer runs alone.
    """

    def __init__(self, inner: nn.Module, change: LowRank, scale: str) -> None:
        self.scale: Final = scale
        super().__init__(base=inner, lora=change)

    def run(self, context: Context, *inputs: Any) -> Any:
        inner, change = self
        output = self.call(inner, context, *inputs)
        scale = context.get(self.scale)
        return output if scale is None else output + self.call(change, context, *inputs) * scale

    def extra_repr(self) -> str:
        return repr(self.scale)


def low_rank(seat: Seat, down: Tensor, up: Tensor, alpha: float) -> LowRank:
    """Builds the update of a layer from two factors that fit it.

    Args:
        seat: The place of a linear layer or a convolution, or of a layer that replaced one, such as
            a quantised one.
        down: (rank, in), or (rank, in, height, width) for a convolution; a 1x1 kernel may be
            missing, or present though the layer is linear.
        up: (out, rank), with or without a 1x1 kernel.
        alpha: The strength before division by the rank.
    """
    if not seat.is_a(nn.Conv2d):
        return LowRank(_linear(down.flatten(1)), _linear(up.flatten(1)), alpha=alpha)
    facts = seat.facts
    options = {name: facts[name] for name in ("stride", "padding", "dilation", "padding_mode")}
    kernel = down[:, :, None, None] if down.ndim == 2 else down
    return LowRank(
        _convolution(kernel, **options),
        _convolution(up.flatten(1)[:, :, None, None]),
        alpha=alpha,
        channels=kernel.shape[1] if kernel.shape[1] < facts["in_channels"] else None,
    )


def _linear(weight: Tensor) -> nn.Linear:
    # On the meta device, because random initial values would be discarded.
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight, weight.is_floating_point())
    return layer


def _convolution(weight: Tensor, **options: Any) -> nn.Conv2d:
    features, channels, height, width = weight.shape
    layer = nn.Conv2d(channels, features, (height, width), bias=False, device="meta", **options)
    layer.weight = nn.Parameter(weight, weight.is_floating_point())
    return layer
