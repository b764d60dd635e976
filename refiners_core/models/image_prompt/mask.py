"""Masks of pictures: each picture of an image prompt acts in a part of the generated one."""

from typing import Any, Final

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from refiners_core.errors import ConditionError
from refiners_core.layers.attend import Attend
from refiners_core.tree.chain import Chain
from refiners_core.tree.context import Context


class PictureAttend(Chain):
    """Attends to the tokens of pictures, each within its mask.

    Without masks in the context, and with one mask, attends to the tokens of all pictures at once.
    With several masks the tokens are divided among as many pictures, and the outputs of an
    attention to each, multiplied by its mask, add up.

    Args:
        mask: The context key of the masks that `token_masks` returns.
        heads: The attention heads.

    Raises:
        ConditionError: In a call, the number of queries does not match any size of the masks.
    """

    def __init__(self, mask: str, heads: int) -> None:
        super().__init__(attend=Attend(heads))
        self.mask: Final = mask

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows queries inner"]:
        q, k, v = inputs
        attend = self.layer("attend", Attend)
        if context.get(self.mask) is None:
            return self.call(attend, context, q, k, v)
        masks = context.get(f"{self.mask}.{q.shape[1]}")
        if masks is None:
            height, width = context[self.mask].shape[-2:]
            raise ConditionError(
                f"the mask {self.mask!r} covers {width} x {height} pixels; {q.shape[1]} tokens are "
                "not a map of them.",
                hint="Leave the masks out, or eject the adapter that changes the number of tokens.",
            )
        rows, pictures = masks.shape[:2]
        if pictures == 1:
            return self.call(attend, context, q, k, v) * masks[:, 0, :, None]
        k, v = (x.unflatten(1, (pictures, -1)).flatten(0, 1) for x in (k, v))
        each = self.call(attend, context, q.repeat_interleave(pictures, 0), k, v)
        return (each.unflatten(0, (rows, pictures)) * masks[..., None]).sum(1)

    def extra_repr(self) -> str:
        return repr(self.mask)


def token_masks(
    key: str, masks: Float[Tensor, "rows pictures height width"], size: tuple[int, int]
) -> dict[str, dict[str, Tensor]]:
    """Returns masks in the sizes of all feature maps, as context values for `PictureAttend`.

    The masks are resized as diffusers resizes them (bicubic).

    Args:
        key: The context key of the masks.
        masks: A mask for each picture, in the size of the generated pictures, in 0...1.
        size: The height and width of the latents, which the UNet halves (rounded up).
    """
    values = {key: {"cond": masks}}
    height, width = size
    while f"{key}.{height * width}" not in values:
        small = interpolate(masks, (height, width), mode="bicubic")
        values[f"{key}.{height * width}"] = {"cond": small.flatten(2)}
        height, width = (height + 1) // 2, (width + 1) // 2
    return values


def joined_masks(
    masks: Float[Tensor, "pictures 1 height width"] | None,
    area: Float[Tensor, "1 1 height width"] | None,
) -> Float[Tensor, "1 pictures height width"] | None:
    """Returns the masks of pictures within the area of their adapter; None without either."""
    if masks is None:
        return area
    whole = masks.transpose(0, 1)
    return whole if area is None else whole * area
