"""The change of one layer's weight that a plain LoRA is made to equal or to approximate."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from refiners_lora.layer_name import Place, Published
from refiners_lora.method.change import Sizes
from refiners_lora.rework.spectrum import Spectrum


class Factors(NamedTuple):
    """The weights of a plain LoRA for one layer, as they are written to a file."""

    down: Tensor
    """(rank, in) or (rank, in, height, width)."""
    up: Tensor
    """(out, rank) or (out, rank, 1, 1)."""
    alpha: float
    """The strength before division by the rank."""

    @property
    def rank(self) -> int:
        """The rank."""
        return len(self.down)

    def matrix(self) -> Tensor:
        """Returns the change of the weight, (out, in * kernel), in float32."""
        factor = self.alpha / self.rank
        return self.up.float().flatten(1) @ self.down.float().flatten(1) * factor


class Target(NamedTuple):
    """The exact change of a weight: a matrix, or a product if it is known to be one."""

    published: Published
    """The published name of the layer."""
    group: str
    """The component and the kind of layer, such as `unet attention`."""
    shape: Sizes
    """The shape of the changed part of the weight: out, in, and a convolution's kernel."""
    whole: Tensor | None = None
    """The change, (out, in * kernel), in float32."""
    product: tuple[Tensor, Tensor] | None = None
    """Factors of the change, (out, rank) and (rank, in * kernel), in float32."""
    written: Factors | None = None
    """The weights of the file, if it has a plain LoRA for the layer."""

    def matrix(self) -> Tensor:
        """Returns the change, (out, in * kernel), in float32."""
        if self.whole is not None:
            return self.whole
        assert self.product is not None
        up, down = self.product
        return up @ down

    def scaled(self, strength: float) -> Self:
        """Returns the change at a strength."""
        whole = None if self.whole is None else self.whole * strength
        product = None if self.product is None else (self.product[0] * strength, self.product[1])
        return self._replace(whole=whole, product=product, written=None)

    def spectrum(self) -> Spectrum:
        """Returns the singular value decomposition of the change."""
        if self.product is not None and self.product[0].shape[1] < min(self.matrix_shape):
            return Spectrum.of_product(*self.product)
        return Spectrum.of(self.matrix())

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """The number of outputs, and that of inputs times the kernel."""
        return self.shape[0], torch.Size(self.shape[1:]).numel()

    def factored(self, up: Tensor, down: Tensor, dtype: torch.dtype | None) -> Factors:
        """Returns factors in the shape of the layer, with a strength of 1.

        Args:
            up: (out, rank).
            down: (rank, in * kernel).
            dtype: The dtype of the result; None for float32.
        """
        kernel, kind = self.shape[2:], dtype or torch.float32
        shaped = down.reshape(len(down), *self.shape[1:]).to(kind)
        ones = (1,) * len(kernel)
        return Factors(shaped, up.reshape(*up.shape, *ones).to(kind), float(len(down)))


def group_of(place: Place) -> str:
    """Returns the component and the kind of a layer, such as `unet attention`."""
    if place.seat.is_a(nn.Conv2d):
        kind = "convolution"
    elif ".attn" in place.name or "self_attn" in place.name:
        kind = "attention"
    elif ".ff." in place.name or ".mlp." in place.name:
        kind = "feed-forward"
    else:
        kind = "other"
    return f"{place.part} {kind}"


def total(targets: Sequence[Target]) -> Target:
    """Returns the sum of changes of one layer, as a product if all are products.

    Args:
        targets: The changes. Fewer input channels, as of a LoRA for the plain UNet on an inpainting
            UNet, are the first ones.
    """
    targets = widest(targets)
    first = targets[0]
    products = [target.product for target in targets]
    if all(product is not None for product in products):
        ups, downs = zip(*(p for p in products if p is not None), strict=True)
        return first._replace(
            whole=None, product=(torch.cat(ups, 1), torch.cat(downs)), written=None
        )
    whole = torch.stack([target.matrix() for target in targets]).sum(0)
    return first._replace(whole=whole, product=None, written=None)


def widest(targets: Sequence[Target]) -> list[Target]:
    """Returns changes of one layer, all of as many input channels as the widest one has."""
    channels = max(target.shape[1] for target in targets)
    return [_widened(target, channels) for target in targets]


def _widened(target: Target, channels: int) -> Target:
    missing = channels - target.shape[1]
    if missing == 0:
        return target
    added = missing * torch.Size(target.shape[2:]).numel()
    shape = (target.shape[0], channels, *target.shape[2:])
    pad = torch.nn.functional.pad
    whole = None if target.whole is None else pad(target.whole, (0, added))
    product = None
    if target.product is not None:
        product = target.product[0], pad(target.product[1], (0, added))
    return target._replace(shape=shape, whole=whole, product=product, written=None)
