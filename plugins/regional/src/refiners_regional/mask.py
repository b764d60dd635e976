"""Masks of regions: drawn or as boxes, softened at their edges, and normalised together."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv1d, pad

from refiners_core.errors import ConditionError
from refiners_core.picture import to_mask


def region_mask(
    mask: Any, box: Any, size: tuple[int, int], feather: float, where: str
) -> Float[Tensor, "1 1 height width"]:
    """Returns the mask of one region in the size of the picture.

    Args:
        mask: A picture, an array or a tensor of any size, 1 inside the region; None with a box, or
            for the whole picture.
        box: Left, top, right and lower edge of the region, as shares of the picture in 0...1; None
            with a mask.
        size: Height and width of the picture.
        feather: The deviation of the blur of the edges, as a share of the shorter side.
        where: The region, for messages.

    Raises:
        ConditionError: Mask and box are both given, or one of them is not valid.
    """
    if mask is not None and box is not None:
        raise ConditionError(
            f"{where} has a mask and a box.",
            hint='Pass one of them: "box": (0, 0, 0.5, 1).',
        )
    if mask is not None:
        drawn = to_mask(mask, size)
        if len(drawn) != 1:
            raise ConditionError(
                f"{where} has {len(drawn)} masks.",
                hint="Pass a list of regions for each picture: [[...], [...]].",
            )
    else:
        drawn = _of_box((0.0, 0.0, 1.0, 1.0) if box is None else _edges(box, where), size)
    return blurred(drawn, feather * min(size)) if feather else drawn


def normalised(
    masks: Float[Tensor, "rows regions height width"], size: tuple[int, int]
) -> Float[Tensor, "rows regions latent_height latent_width"]:
    """Returns weighted masks in the size of the latents, which add up to at most 1 anywhere.

    What is missing to 1 is the share of the prompt of the whole picture.

    Args:
        masks: The masks, each multiplied by the weight of its region.
        size: Height and width of the latents.
    """
    small = adaptive_avg_pool2d(masks, size)
    return small / small.sum(1, keepdim=True).clamp(min=1.0)


def blurred(
    mask: Float[Tensor, "rows 1 height width"], sigma: float
) -> Float[Tensor, "rows 1 height width"]:
    """Returns a mask with soft edges: a Gaussian blur, the border of the picture repeated.

    Args:
        mask: The mask.
        sigma: The deviation of the blur in pixels.
    """
    reach = max(1, round(3 * sigma))
    line = torch.arange(-reach, reach + 1, dtype=torch.float32, device="cpu")
    kernel = torch.exp(-0.5 * (line / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    rows = mask.flatten(0, 1)
    for _ in range(2):
        lines = pad(rows, (reach, reach), mode="replicate")
        length = lines.shape[-1]
        rows = conv1d(lines.reshape(-1, 1, length), kernel).view(*rows.shape).transpose(1, 2)
    return rows.unflatten(0, mask.shape[:2])


def _of_box(
    box: tuple[float, float, float, float], size: tuple[int, int]
) -> Float[Tensor, "1 1 height width"]:
    """Returns the share of each pixel that lies in a box."""
    left, top, right, bottom = box

    def covered(first: float, last: float, count: int) -> Tensor:
        starts = torch.arange(count, dtype=torch.float32, device="cpu")
        ends = (starts + 1).clamp(max=last * count)
        return (ends - starts.clamp(min=first * count)).clamp(min=0)

    rows, columns = covered(top, bottom, size[0]), covered(left, right, size[1])
    return torch.outer(rows, columns)[None, None]


def _edges(box: Any, where: str) -> tuple[float, float, float, float]:
    is_box = isinstance(box, list | tuple) and len(box) == 4
    if is_box and all(isinstance(edge, int | float) for edge in box):
        left, top, right, bottom = map(float, box)
        if 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
            return left, top, right, bottom
    raise ConditionError(
        f"the box of {where} is left, top, right and lower edge as shares of the picture, not "
        f"{box!r}.",
        hint='Try "box": (0, 0, 0.5, 1) for the left half.',
    )
