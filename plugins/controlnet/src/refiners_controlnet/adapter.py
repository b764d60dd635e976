"""ControlNets that read one picture: edges, depth, a pose; and the one that fills in a part."""

from typing import Any, ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import ConditionError
from refiners_core.models.control import SideNetwork
from refiners_core.picture import to_mask, to_pixels

HIDDEN: Final = -1.0
"""The value that the released inpainting network reads for pixels under the mask."""


class ControlNet(SideNetwork):
    """Makes generated pictures follow a control picture (arXiv:2302.05543).

    The control picture shows edges, a depth map or a pose, as the weights were trained for. The
    condition is a picture with values in 0...1, or one per generated picture, resized to their
    size.

    Example:
        >>> ControlNet(name="controlnet-canny").takes_condition
        True
    """

    def pixels(self, value: Any, size: tuple[int, int]) -> Float[Tensor, "count 3 height width"]:
        """Returns the picture in 0...1, resized."""
        return to_pixels(value, size)


class InpaintControlNet(SideNetwork):
    """Fills in the masked part of a picture to match the rest (ControlNet 1.1, `inpaint`).

    The condition is a mapping: `picture`, in 0...1, and `mask`, white where the picture is filled
    in. Pixels under the mask are set to -1, a value outside the range of pictures.

    Example:
        >>> InpaintControlNet(name="controlnet-inpaint").inputs
        ('picture', 'mask')
    """

    inputs: ClassVar[tuple[str, ...]] = ("picture", "mask")

    def pixels(self, value: Any, size: tuple[int, int]) -> Float[Tensor, "count 3 height width"]:
        """Returns the picture in 0...1, with -1 where the mask is above one half.

        Raises:
            ConditionError: The picture or the mask is not a picture, or their counts differ.
        """
        return masked(value, size, HIDDEN, self.key)


def masked(
    value: Any, size: tuple[int, int], hidden: float, adapter: str
) -> Float[Tensor, "count 3 height width"]:
    """Returns pictures in 0...1 with one value in place of the pixels under a mask.

    Args:
        value: A mapping with `picture` and `mask`, white where pixels are hidden.
        size: Height and width of the generated pictures.
        hidden: The value of hidden pixels.
        adapter: The name of the adapter, for messages.

    Raises:
        ConditionError: The picture or the mask is missing or is not a picture, other values are
            given, or the counts differ.
    """
    if (names := {*value}) != {"picture", "mask"}:
        given = " and ".join(sorted(map(str, names))) or "nothing"
        raise ConditionError(
            f"{adapter} fills in a picture under a mask; it is given {given}.",
            hint='Pass {"picture": picture, "mask": mask}.',
        )
    picture, mask = to_pixels(value["picture"], size), to_mask(value["mask"], size)
    if len(picture) != len(mask) and 1 not in (len(picture), len(mask)):
        raise ConditionError(
            f"{adapter} is given {len(picture)} pictures and {len(mask)} masks.",
            hint="Pass one mask, or one per picture.",
        )
    return torch.where(mask > 0.5, hidden, picture)
