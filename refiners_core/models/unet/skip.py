"""What the way down records and the way up reads again."""

from refiners_core.tree.combinators import (
    Concatenate,
    Identity,
    Passthrough,
    SetContext,
    UseContext,
)


def skip_key(index: int) -> str:
    """Returns the context key of a skip; 0 is the first that is written."""
    return f"unet.skip.{index}"


class SkipWrite(Passthrough):
    """Records a map for the way up.

    Args:
        index: Which skip, in the order in which they are written.
    """

    def __init__(self, index: int) -> None:
        super().__init__(record=Identity(), keep=SetContext(skip_key(index)))


class SkipRead(Concatenate):
    """Joins the running map with the one that was recorded on the way down.

    Args:
        index: Which skip, in the order in which they were written.
    """

    def __init__(self, index: int) -> None:
        super().__init__(backbone=Identity(), record=UseContext(skip_key(index)))
