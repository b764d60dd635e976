"""Deep shrink: the first steps of a large picture run on smaller feature maps."""

from collections.abc import Iterable
from typing import Any, Final

from torch import nn

from refiners_core import Adapter, Chain, Edit, Seat, UseContext
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.option import number, whole
from refiners_regional.resize import AtFullSize, Restore, Shrink


class DeepShrink(Adapter):
    """Shrinks the feature maps inside the UNet in the first steps of a large picture.

    The network then sees the whole picture at about the size that it was trained with, so that it
    does not repeat its subject; later steps add the details. The method is Kohya's deep shrink,
    which has no paper; HiDiffusion (arXiv:2311.17528, section 4.1) shrinks at the same place.

    After a block of the way down feature maps are shrunk, and on the way up they are restored
    where they meet the skip of that block. Adapters that add to maps in between, such as a
    ControlNet, see them in their full size.

    Args:
        block: The block, counted from 0 for the first convolution, then residual blocks and
            downsamplings in their order; by default the first downsampling, which is block 3 of
            Stable Diffusion 1.5 and XL.
        factor: The factor by which width and height shrink at scale 1; at scale s it is
            `factor ** s`.
        until: The share of the steps, from the first on, in which it acts.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: `block` is not a whole number from 0 on, `factor` is not in 1...9, or `until`
            is not in 0...1.

    Example:
        >>> DeepShrink(name="kohya-hires").factor
        2.0
    """

    def __init__(
        self,
        *,
        block: int | None = None,
        factor: float = 2.0,
        until: float = 0.35,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.block: Final = None if block is None else whole("block", block, 3, low=0)
        self.factor: Final = number("factor", factor, 2, low=1, high=9)
        self.until: Final = number("until", until, 0.35, low=0, high=1)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Shrinks maps after the block, and restores them at its skip.

        Raises:
            AdapterError: No block of the way down follows that one.
        """
        config = model.unet.config
        block = config.layers[0] + 1 if self.block is None else self.block
        down = [seat.path for seat in model.slot("unet.down")]
        following = [
            seat.path
            for level in down
            for slot in ("unet.residual", "unet.down.downsample")
            for seat in model.slot(slot)
            if seat.path.startswith(f"{level}.")
        ]
        if block >= len(following):
            raise AdapterError(
                f"{self.key} shrinks after block {block}, but the last one of this UNet that "
                f"another follows is {len(following) - 1}.",
                hint=f"Try block={min(3, len(following) - 1)}.",
            )
        levels = range(len(down))
        skips = model.slot("unet.skip.write")
        level_of = {
            seat.path: max(level for level in levels if config.first_skip(level) <= i)
            for i, seat in enumerate(skips)
            if i > block
        }
        ends = (*map(config.first_skip, levels[1:]), len(skips))
        outputs = model.slot("unet.down.output")
        level_of |= {seat.path: i for i, seat in enumerate(outputs) if ends[i] - 1 > block}
        level_of |= {seat.path: levels[-1] for seat in model.slot("unet.mid.output")}

        def shrunk(inner: nn.Module, seat: Seat) -> Chain:
            return Chain(shrink=Shrink(self.scale_key, self.factor, self.until), inner=inner)

        def restored(inner: nn.Module, seat: Seat) -> Chain:
            record = seat.chain.layer("record", UseContext)
            return Chain(restore=Restore(record.key), inner=inner)

        def full(inner: nn.Module, seat: Seat) -> Chain:
            return AtFullSize(level_of[seat.path], inner)

        edits: list[Edit] = []
        for slot in ("unet.residual", "unet.down.downsample"):
            seats = model.slot(slot).where(lambda seat: seat.path == following[block])
            edits += seats.wrap(shrunk, name="shrink", stage="inputs") if len(seats) else ()
        backbones = model.slot("unet.skip.backbone")
        place = backbones[len(backbones) - 1 - block].path
        meeting = backbones.where(lambda seat: seat.path == place)
        edits += meeting.wrap(restored, name="restore", stage="inputs")
        for slot in ("unet.skip.write", "unet.down.output", "unet.mid.output"):
            seats = model.slot(slot).where(lambda seat: seat.path in level_of)
            edits += seats.wrap(full, name="full", stage="output") if len(seats) else ()
        return edits

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses a scale for each picture: all maps of a batch have one size.

        Raises:
            ConditionError: The scale differs between pictures.
        """
        strengths = () if request.places is None else request.places.adapters
        for item in strengths:
            steps = item.steps if item.adapter is self else ()
            if any(len(set(numbers)) > 1 for step in steps for numbers in step.values()):
                raise ConditionError(
                    f"{self.key} shrinks all pictures alike, but its scale differs between them.",
                    hint="Pass one scale, or generate the pictures one by one.",
                )
