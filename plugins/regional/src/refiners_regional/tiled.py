"""Pictures larger than those of the model: predictions in windows that overlap, joined."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Seat
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.diffusion import (
    GenerationRequest,
    LatentDiffusion,
    Window,
    window_scope,
)
from refiners_core.option import whole
from refiners_regional.side import sides
from refiners_regional.window import gaussian, uniform, windows_of

Weights = Callable[[int, int], Tensor]


class Windowed(Adapter):
    """Runs the network on windows of the picture and joins the predictions before each step.

    All spatial values of other adapters, such as the features of a control picture and masks, are
    cropped to the window. The sampler takes one step with the joined prediction, so that multistep
    samplers work as on any picture. A subclass decides the weights and the default stride.

    Args:
        window: One side of a window, or (width, height), in pixels; by default the size of the
            model's own pictures.
        stride: The distance of neighbouring windows, or (to the right, downwards), in pixels; by
            default a share of the window.
        batch: The number of windows that run in one pass of the network.
        circular: Whether the picture continues beyond its right edge at its left one.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: A size is not a number of pixels, `stride` is larger than `window`, or `batch`
            is not a whole number from 1 on.
    """

    together: ClassVar[tuple[str, ...]] = ("style-aligned",)
    """The names of adapters that look at all rows of a pass, which are then of one window."""
    shares: ClassVar[int]
    """The number of strides in a window, by default."""
    weights: ClassVar[Weights]
    """Returns the weight of a prediction at each position of a window of a height and a width."""

    def __init__(
        self,
        *,
        window: int | tuple[int, int] | None = None,
        stride: int | tuple[int, int] | None = None,
        batch: int = 1,
        circular: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.window: Final = None if window is None else sides("window", window, 512)
        self.stride: Final = None if stride is None else sides("stride", stride, 64)
        self.batch: Final = whole("batch", batch, 4)
        self.circular: Final = bool(circular)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Wraps the network; for a circular picture also the decoder.

        Raises:
            AdapterError: A window or a stride is not a multiple of the pixels of a latent, or the
                stride is larger than the window.
        """
        factor = model.autoencoder.config.reduction
        window = self.window or model.sides
        stride = self.stride or tuple(max(side // self.shares, factor) for side in window)
        for name, pair in (("window", window), ("stride", stride)):
            if any(side % factor for side in pair):
                raise AdapterError(
                    f"the {name} of {self.key} is {pair[0]} x {pair[1]} pixels; this {model.base} "
                    f"needs multiples of {factor}.",
                    hint=f"Try {name}={max(factor, pair[0] // factor * factor)}.",
                )
        if stride[0] > window[0] or stride[1] > window[1]:
            raise AdapterError(
                f"{self.key} has a stride of {stride[0]} x {stride[1]} pixels, larger than its "
                f"window of {window[0]} x {window[1]}.",
                hint=f"Try stride={window[0] // 2}.",
            )
        latent = [side // factor for side in (*window[::-1], *stride[::-1])]

        def tiled(inner: nn.Module, seat: Seat) -> nn.Module:
            return Tiles(self, (latent[0], latent[1]), (latent[2], latent[3]), inner)

        def around(inner: nn.Module, seat: Seat) -> nn.Module:
            return DecodeAround(self.scale_key, latent[1] // 2, inner)

        edits = model.slot("denoise.predict").wrap(tiled, name="windows", stage="output")
        if not self.circular:
            return edits
        decoded = model.slot("autoencoder.decode").wrap(around, name="around", stage="output")
        return (*edits, *decoded)

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses several windows in a pass beside an adapter that looks at all rows of it.

        Raises:
            ConditionError: Such an adapter acts on several pictures.
        """
        acting = [item.name for item in request.model.adapters if item.scale_key in request.scales]
        mixing = [name for name in acting if name in self.together]
        if mixing and self.batch > 1 and request.count > 1:
            raise ConditionError(
                f"{self.key} runs {self.batch} windows in a pass, but {mixing[0]} shares values "
                "between all rows of a pass.",
                hint="Load it with batch=1.",
            )


class MultiDiffusion(Windowed):
    """Joins the predictions in windows by their mean (arXiv:2302.08113, equation 5).

    By default a window moves by an eighth of its side.

    Example:
        >>> MultiDiffusion(name="multidiffusion").batch
        1
    """

    shares: ClassVar[int] = 8
    weights: ClassVar[Weights] = staticmethod(uniform)


class MixtureOfDiffusers(Windowed):
    """Joins the predictions in windows by Gaussian weights (arXiv:2302.02412, section 3).

    By default windows overlap by half of their sides.

    Example:
        >>> MixtureOfDiffusers(name="mixture-of-diffusers").circular
        False
    """

    shares: ClassVar[int] = 2
    weights: ClassVar[Weights] = staticmethod(gaussian)


class Tiles(Chain):
    """Runs the network on windows and returns the weighted mean of its predictions.

    Where one window covers the picture it runs as without the adapter.

    Args:
        adapter: The adapter with the weights.
        window: Height and width of a window in latents.
        stride: The distance of windows downwards and to the right in latents.
        inner: The network.
    """

    inner: nn.Module

    def __init__(
        self,
        adapter: Windowed,
        window: tuple[int, int],
        stride: tuple[int, int],
        inner: nn.Module,
    ) -> None:
        super().__init__(inner=inner)
        self.scale: Final = adapter.scale_key
        self.window, self.stride = window, stride
        self.batch, self.is_circular = adapter.batch, adapter.circular
        self.weights: Final = type(adapter).weights

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows channels height width"]:
        x: Tensor = inputs[0]
        scale = context.get(self.scale)
        size = (x.shape[-2], x.shape[-1])
        windows = windows_of(size, self.window, self.stride, is_circular=self.is_circular)
        if scale is None or len(windows) == 1:
            return self.call(self.inner, context, *inputs)
        joined = self._joined(context, x, windows).to(x.dtype)
        if scale.ndim == 0 and scale == 1:
            return joined
        whole: Tensor = self.call(self.inner, context, *inputs)
        return whole + scale * (joined - whole)

    def extra_repr(self) -> str:
        return f"{self.scale!r}, window={self.window}, stride={self.stride}"

    def _joined(self, context: Context, x: Tensor, windows: tuple[Window, ...]) -> Tensor:
        weights = self.weights(windows[0].height, windows[0].width).to(x.device)
        total, shares = x.new_zeros(x.shape, dtype=torch.float32), weights.new_zeros(x.shape[-2:])
        branches = len(context["branches"])
        for first in range(0, len(windows), self.batch):
            group = windows[first : first + self.batch]
            name = f"{self.scale}.{first}"
            scope = window_scope(context, group, context.memory.part(name))
            rows = [window.crop(x).unflatten(0, (branches, -1)) for window in group]
            made: Tensor = self.call(self.inner, scope, torch.cat(rows, 1).flatten(0, 1))
            parts = made.unflatten(0, (branches, len(group), -1)).unbind(1)
            for window, part in zip(group, parts, strict=True):
                window.add(total, part.flatten(0, 1).float() * weights)
                window.add(shares, weights)
        return total / shares


class DecodeAround(Chain):
    """Decodes latents whose left and right edges touch.

    Args:
        scale: The context key of the scale; without a value the latents are decoded as they are.
        margin: The columns of latents that are repeated on each side and cut off again.
        inner: The decoder.
    """

    inner: nn.Module

    def __init__(self, scale: str, margin: int, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.scale: Final = scale
        self.margin: Final = margin

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows channels height width"]:
        latents: Tensor = inputs[0]
        if context.get(self.scale) is None:
            return self.call(self.inner, context, latents)
        width = latents.shape[-1]
        margin = min(self.margin, width)
        edges = [latents[..., -margin:], latents, latents[..., :margin]]
        pixels: Tensor = self.call(self.inner, context, torch.cat(edges, -1))
        factor = pixels.shape[-1] // (width + 2 * margin)
        return pixels[..., margin * factor : (margin + width) * factor]

    def extra_repr(self) -> str:
        return f"{self.scale!r}, margin={self.margin}"
