"""Leaving out the last layers of text encoders."""

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
    """Layers that are not run: what comes in goes out."""

    def run(self, context: Context, *inputs: Any) -> Any:
        return inputs[0]


class ClipSkip(Adapter):
    """Takes a text as text encoders know it before their last layers, as some models were trained.

    An adapter, since this changes what the model computes and not what one picture is of: it goes
    together with LoRAs of the text encoder, is seen in the printed tree, and costs nothing where
    nobody asks for it. SD 1.5 normalises what it takes; SDXL leaves out one layer anyway.

    Args:
        layers: How many layers are left out, from 1; web interfaces count one more.

    Raises:
        AdapterError: That is no number of layers, or leaves none.

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
                f"{self.key} leaves out at least one layer, not {layers}.",
                hint="Try ClipSkip(layers=1).",
            )
        self.layers: Final = layers

    def edits(self, model: Any) -> Iterable[Edit]:
        layers = select(model).of(ClipLayer).where(_is_of_a_text)
        cuts: set[str] = set()
        skipped: set[str] = set()
        is_pair = isinstance(model.text_encoder, TextEncoderPair)
        for chain in {id(seat.chain): seat.chain for seat in layers}.values():
            paths = [seat.path for seat in layers if seat.chain is chain]
            last = len(paths) - is_pair  # the layer that nobody takes tokens from
            if self.layers >= last:
                raise AdapterError(
                    f"{self.key} leaves out {self.layers} of {last} layers.",
                    hint=f"Take fewer: ClipSkip(layers={max(1, last - 1)}).",
                )
            cuts.add(paths[last - self.layers])
            skipped |= {*paths[last - self.layers :]}
        if not is_pair:
            return layers.where(lambda seat: seat.path in skipped).wrap(
                lambda inner, seat: Skipped(inner), stage="output"
            )
        # The whole text is still pooled by all layers: tokens are only taken from earlier ones.
        taken = select(model).of(SetContext).within(ClipTransformer).where(_is_of_a_text)
        return taken.remove() + layers.where(lambda seat: seat.path in cuts).before(
            "penultimate", lambda seat: SetContext(PENULTIMATE)
        )


def _is_of_a_text(seat: Seat) -> bool:
    return seat.path.startswith("text_encoder.")
