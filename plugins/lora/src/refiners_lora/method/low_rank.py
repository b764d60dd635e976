"""LoRA: a product of two factors (arXiv:2106.09685, section 4.1)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Chain, Context, Seat
from refiners_lora.method.change import Change, Tensors, widened


class LowRank(Chain, Change):
    """Computes `alpha / rank * up(down(x))`, the low-rank update of a layer.

    With a core tensor, the convolution between the factors has the kernel (LoCon with Tucker
    decomposition).

    Args:
        down: Linear layer or convolution to `rank` features; a convolution has the kernel, stride
            and padding of the updated layer.
        up: Linear layer or 1x1 convolution from `rank` features.
        alpha: The strength in the file, before division by the rank.
        channels: The number of input channels that it reads, from the first; all by default.
        core: The convolution between the factors, which has the kernel in place of `down`.
    """

    title = "a LoRA"
    marks: ClassVar = frozenset({"down", "up", "adaptive_a", "adaptive_b", "adaptive_e"})
    needs: ClassVar = (("down",), ("up",))
    may: ClassVar = frozenset({"mid", "up_bias"})
    kinds: ClassVar = (nn.Linear, nn.Conv2d)
    is_linear = False

    def __init__(
        self,
        down: nn.Linear | nn.Conv2d,
        up: nn.Linear | nn.Conv2d,
        *,
        alpha: float,
        channels: int | None = None,
        core: nn.Conv2d | None = None,
    ) -> None:
        # Attributes before children: a chain without state is built faster.
        self.alpha = alpha
        self.rank = down.weight.shape[0]
        self.factor: Final = alpha / self.rank
        first = {} if channels is None else {"first": FirstChannels(channels)}
        middle = {} if core is None else {"core": core}
        super().__init__(**first, down=down, **middle, up=up)

    @classmethod
    def fault(cls, tensors: Tensors) -> str:
        down, up, mid = tensors["down"], tensors["up"], tensors.get("mid")
        is_paired = down.ndim in (2, 4) and up.ndim in (2, 4) and down.shape[0] == up.shape[1]
        if mid is not None:
            is_paired = is_paired and mid.ndim == 4 and [*mid.shape[:2]] == [down.shape[0]] * 2
        if is_paired:
            return ""
        core = f", mid is {[*mid.shape]}" if mid is not None else ""
        return f"do not share a rank: down is {[*down.shape]}, up is {[*up.shape]}{core}"

    @classmethod
    def sizes(cls, tensors: Tensors) -> tuple[list[int] | None, list[int] | None]:
        down, up, mid = tensors["down"], tensors["up"], tensors.get("mid")
        kernels = [_kernel(end) for end in (down if mid is None else mid, up)]
        return [down.shape[1], *kernels[0]], [up.shape[0], *kernels[1]]

    @classmethod
    def fits(cls, tensors: Tensors, sizes: tuple[int, ...]) -> bool:
        return cls.sizes(tensors) == ([*sizes[1:]], [sizes[0]])

    @classmethod
    def rank_of(cls, tensors: Tensors) -> int | None:
        return tensors["down"].shape[0]

    @classmethod
    def of(cls, seat: Seat, tensors: Tensors, alpha: float | None) -> Self:
        down, up = tensors["down"], tensors["up"]
        alpha = float(len(down) if alpha is None else alpha)
        return low_rank(  # pyright: ignore[reportReturnType]
            seat, down, up, alpha, tensors.get("mid"), tensors.get("up_bias")
        )

    def run(self, context: Context, *inputs: Any) -> Any:
        # The strength multiplies the few features between the factors, not all of the output.
        x, *scales = inputs
        strength = self.factor * scales[0] if scales else self.factor
        *before, up = self
        for layer in before:
            x = self.call(layer, context, x)
        if isinstance(up, nn.Linear | nn.Conv2d) and up.bias is None:
            return self.call(up, context, x * strength)
        return self.call(up, context, x) * strength

    @property
    def is_fresh(self) -> bool:
        """Whether nothing else holds the tensor that `run` returns, so that it may be changed."""
        up = self._modules["up"]
        is_plain = type(up) is nn.Linear or type(up) is nn.Conv2d
        return is_plain and not (up._forward_hooks or self._forward_hooks)  # pyright: ignore

    def delta(self, weight: Tensor, bias: Tensor | None = None) -> Mapping[str, Tensor]:
        return self.merged(weight, bias, 1.0)

    def merged(self, weight: Tensor, bias: Tensor | None, strength: float) -> Mapping[str, Tensor]:
        strength *= self.factor
        parts = {name: layer.weight.float() for name, layer in self.factors()}
        up, down = parts["up"].flatten(1) * strength, parts["down"]
        if "core" in parts:
            change = torch.einsum("mnhw,om,ni->oihw", parts["core"], up, down.flatten(1))
        else:
            change = (up @ down.flatten(1)).view(len(up), *down.shape[1:])
        change = widened(change.reshape(*change.shape[:2], *weight.shape[2:]), weight)
        changes = {"weight": change}
        up_bias: Tensor | None = self["up"].bias
        if up_bias is not None:
            changes["bias"] = up_bias.float() * strength
        return changes

    def fused(self, weight: Tensor, strength: float) -> Tensor | None:
        parts = dict(self.published())
        if parts.keys() != {"down", "up"} or parts["down"].shape[1] != weight.shape[1]:
            return None
        up, down = (parts[role].detach().flatten(1).to(weight) for role in ("up", "down"))
        product = torch.addmm(weight.flatten(1), up, down, alpha=self.factor * strength)
        return product.view_as(weight)

    def factors(self) -> list[tuple[str, Any]]:
        """Returns the layers with weights by name."""
        named = self.children_by_name()
        return [(name, layer) for name, layer in named if name in ("down", "core", "up")]

    def published(self) -> Mapping[str, Tensor]:
        roles = {"down": "down", "core": "mid", "up": "up"}
        weights: dict[str, Tensor] = {roles[name]: layer.weight for name, layer in self.factors()}
        bias: Tensor | None = self["up"].bias
        return weights if bias is None else {**weights, "up_bias": bias}

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


def low_rank(
    seat: Seat,
    down: Tensor,
    up: Tensor,
    alpha: float,
    core: Tensor | None = None,
    bias: Tensor | None = None,
) -> LowRank:
    """Builds the update of a layer from two factors that fit it.

    Args:
        seat: The place of a linear layer or a convolution, or of a layer that replaced one, such as
            a quantised one.
        down: (rank, in), or (rank, in, height, width) for a convolution; a 1x1 kernel may be
            missing, or present though the layer is linear.
        up: (out, rank), with or without a 1x1 kernel.
        alpha: The strength before division by the rank.
        core: (rank, rank, height, width) between the factors, for a convolution.
        bias: (out,), added after `up`.
    """
    if not seat.is_a(nn.Conv2d):
        return LowRank(_linear(down.flatten(1)), _linear(up.flatten(1), bias), alpha=alpha)
    facts = seat.facts
    options = {name: facts[name] for name in _OPTIONS}
    kernel = down[:, :, None, None] if down.ndim == 2 else down
    return LowRank(
        _convolution(kernel, None, **({} if core is not None else options)),
        _convolution(up.flatten(1)[:, :, None, None], bias),
        alpha=alpha,
        channels=kernel.shape[1] if kernel.shape[1] < facts["in_channels"] else None,
        core=None if core is None else _convolution(core, None, **options),
    )


def rebuilt(change: LowRank, down: Tensor, up: Tensor, is_trained: bool) -> LowRank:
    """Returns an update like another one, with other factors, at a strength of 1.

    Args:
        change: The other update.
        down: The weight of `down`, of another rank perhaps.
        up: The weight of `up`, of the same rank.
        is_trained: Whether the factors are to be trained.
    """
    layers = dict(change.children_by_name())
    first: Any = layers.get("first")
    new: list[Any] = []
    for name, weight in (("down", down), ("up", up)):
        layer: Any = layers[name]
        if isinstance(layer, nn.Conv2d):
            options = {key: getattr(layer, key) for key in _OPTIONS}
            new.append(_convolution(weight.contiguous(), None, **options))
        else:
            new.append(_linear(weight.contiguous()))
    channels = None if first is None else first.channels
    made = LowRank(new[0], new[1], alpha=float(len(down)), channels=channels)
    return made.requires_grad_(is_trained)


def folded(change: Change) -> Change:
    """Returns a plain LoRA with its strength in `up`, so that its alpha is its rank.

    Any other change is returned as it is.
    """
    if type(change) is not LowRank or change.factor == 1 or change.offset is not None:
        return change
    weights = change.published()
    if {*weights} != {"down", "up"}:
        return change
    up = weights["up"].detach() * change.factor
    return rebuilt(change, weights["down"].detach(), up, is_trained=False)


def _kernel(factor: Tensor) -> list[int]:
    """Returns the kernel of a factor; one of 1x1 is left out."""
    return [] if factor.shape[2:] in ((), (1, 1)) else [*factor.shape[2:]]


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    # On the meta device, because random initial values would be discarded.
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    return _with_weights(layer, weight, bias)


def _convolution(weight: Tensor, bias: Tensor | None, **options: Any) -> nn.Conv2d:
    features, channels, height, width = weight.shape
    layer = nn.Conv2d(channels, features, (height, width), bias=False, device="meta", **options)
    return _with_weights(layer, weight, bias)


def _with_weights(layer: Any, weight: Tensor, bias: Tensor | None) -> Any:
    layer.weight = nn.Parameter(weight, weight.is_floating_point())
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer


_OPTIONS: Final = ("stride", "padding", "dilation", "padding_mode")
