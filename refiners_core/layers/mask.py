"""Masks over an image, applied to feature maps and tokens."""

from typing import Any, Final

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from refiners_core.errors import ConditionError
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer


class MaskMap(Layer):
    """Multiplies a feature map by a mask averaged to its size.

    Without a mask in the context the map passes unchanged. Averaging preserves sums: masks that add
    up to one do so at every size.

    Args:
        key: The context key of the mask, `(rows, 1, height, width)` in 0...1, in the size of the
            latents.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key: Final = key

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows channels height width"]:
        x, mask = inputs[0], context.get(self.key)
        return x if mask is None else x * adaptive_avg_pool2d(mask, x.shape[-2:])

    def extra_repr(self) -> str:
        return repr(self.key)


class MaskTokens(MaskMap):
    """Multiplies the tokens of a feature map, one per position, by a mask averaged to its size.

    The map has the size of the latents, halved (rounded up) any number of times.

    Args:
        key: The context key of the mask, `(rows, 1, height, width)` in 0...1, in the size of the
            latents.

    Raises:
        ConditionError: In a call, the number of tokens does not match any such size.
    """

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows tokens features"]:
        x, mask = inputs[0], context.get(self.key)
        return x if mask is None else x * mask_of_tokens(mask, x.shape[1], self.key)


def mask_of_tokens(
    mask: Float[Tensor, "rows masks height width"], tokens: int, key: str
) -> Float[Tensor, "rows tokens masks"]:
    """Returns masks of latents as masks of the tokens of a feature map, one per position.

    Args:
        mask: The masks, in the size of the latents.
        tokens: The number of tokens, one for each position of the latents, halved (rounded up) any
            number of times.
        key: The context key of the masks, for messages.

    Raises:
        ConditionError: The number of tokens does not match any such size.
    """
    size = size_of_tokens(tokens, mask.shape[-2], mask.shape[-1])
    if size is None:
        raise ConditionError(
            f"the mask {key!r} covers {mask.shape[-2]} x {mask.shape[-1]} latents; "
            f"{tokens} tokens are not a map of them.",
            hint="Leave mask= out, or eject the adapter that changes the number of tokens.",
        )
    return adaptive_avg_pool2d(mask, size).flatten(2).transpose(1, 2)


def size_of_tokens(tokens: int, height: int, width: int) -> tuple[int, int] | None:
    """Returns the height and width of the feature map whose positions are tokens.

    Args:
        tokens: The number of tokens.
        height: The height of the latents, which the UNet halves, rounded up, any number of times.
        width: Their width.

    Returns:
        None if no such map has so many positions.

    Example:
        >>> size_of_tokens(12, 8, 6)
        (4, 3)
    """
    while height * width > tokens and height * width > 1:
        height, width = (height + 1) // 2, (width + 1) // 2
    return (height, width) if height * width == tokens else None
