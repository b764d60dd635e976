"""Clip skip: leaving out the last layers of text encoders."""

from collections.abc import Iterable
from typing import Any, Final

from refiners_core.errors import AdapterError
from refiners_core.models.clip.layer import PENULTIMATE, ClipLayer, ClipTransformer
from refiners_core.models.clip.pair import TextEncoderPair
from refiners_core.surgery.adapter import Adapter
from refiners_core.surgery.selection import Edit, select
from refiners_core.surgery.tree_index import Seat
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import SetContext
from refiners_core.tree.context import Context


class Skipped(Chain):
    """Layers that do not run: it returns its input."""

    def run(self, context: Context, *inputs: Any) -> Any:
        return inputs[0]


class ClipSkip(Adapter):
    """Skips the last layers of text encoders, as some models were trained.

    It is an adapter because it changes the model rather than one prompt: it combines with LoRAs of
    the text encoder, shows in the printed tree, and costs nothing unless it is worn. SD 1.5 applies
    the final norm to the remaining features; SDXL skips one layer anyway.

    Args:
        layers: The number of skipped layers, from 1; web interfaces count one more.

    Raises:
        AdapterError: The number is less than 1, or leaves no layer.

    Example:
        >>> from refiners_core.models import sd15
        >>> model = sd15.build(device="meta")
        >>> with ClipSkip(layers=1).on(model):
        ...     "Skipped" in str(model.text_encoder)
        True
    """

    def __init__(self, layers: int = 1, *, name: str = "clip-skip") -> None:
        super().__init__(name=name)
        if layers < 1:
            raise AdapterError(
                f"{self.key} skips at least one layer, not {layers}.",
                hint="Try ClipSkip(layers=1).",
            )
        self.layers: Final = layers

    def edits(self, model: Any) -> Iterable[Edit]:
        layers = select(model).of(ClipLayer).where(_is_in_text_encoder)
        cuts: set[str] = set()
        skipped: set[str] = set()
        is_pair = isinstance(model.text_encoder, TextEncoderPair)
        for chain in {id(seat.chain): seat.chain for seat in layers}.values():
            paths = [seat.path for seat in layers if seat.chain is chain]
            last = len(paths) - is_pair  # whose features the second encoder only pools
            if self.layers >= last:
                raise AdapterError(
                    f"{self.key} skips {self.layers} of {last} layers.",
                    hint=f"Skip fewer: ClipSkip(layers={max(1, last - 1)}).",
                )
            cuts.add(paths[last - self.layers])
            skipped |= {*paths[last - self.layers :]}
        if not is_pair:
            return layers.where(lambda seat: seat.path in skipped).wrap(
                lambda inner, seat: Skipped(inner), stage="output"
            )
        # All layers still run for the pooled text; only the features are taken from earlier ones.
        penultimate = (
            select(model).of(SetContext).within(ClipTransformer).where(_is_in_text_encoder)
        )
        return penultimate.remove() + layers.where(lambda seat: seat.path in cuts).before(
            "penultimate", lambda seat: SetContext(PENULTIMATE)
        )


def _is_in_text_encoder(seat: Seat) -> bool:
    return seat.path.startswith("text_encoder.")
