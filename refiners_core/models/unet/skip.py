"""Skip connections: the way down records feature maps, the way up reads them."""

from refiners_core.tree.combinators import (
    Concatenate,
    Identity,
    Passthrough,
    SetContext,
    UseContext,
)


def skip_key(index: int) -> str:
    """Returns the context key of a skip, counted from 0 in the order of writing."""
    return f"unet.skip.{index}"


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
