"""Skip connections: the way down records feature maps, the way up reads them."""

from typing import Any, Final

from jaxtyping import Float
from torch import Tensor

from refiners_core.tree.combinators import (
    Concatenate,
    Identity,
    Passthrough,
    SetContext,
    UseContext,
)
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer


def skip_key(index: int) -> str:
    """Returns the context key of a skip, counted from 0 in the order of writing."""
    return f"unet.skip.{index}"


class SkipReserve(Layer):
    """Makes room for all skips in the context, and returns its input.

    A compiled block is compiled again where the context has another number of values. With this,
    that number is the same in all blocks.

    Args:
        count: The number of skips.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count: Final = count

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows channels height width"]:
        for index in range(self.count):
            context[skip_key(index)] = None
        return inputs[0]

    def extra_repr(self) -> str:
        return f"{self.count}"


class SkipWrite(Passthrough):
    """Records its input for the way up, and returns it.

    Args:
        index: The skip, in the order of writing.
    """

    def __init__(self, index: int) -> None:
        super().__init__(record=Identity(), keep=SetContext(skip_key(index)))


class SkipRead(Concatenate):
    """Concatenates its input and the feature map that was recorded on the way down.

    Args:
        index: The skip, in the order of writing.
    """

    def __init__(self, index: int) -> None:
        super().__init__(backbone=Identity(), record=UseContext(skip_key(index)))
