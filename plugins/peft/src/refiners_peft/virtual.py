"""Learned tokens before every text: what prefixes and prompts share."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Final

from torch import nn

from refiners_core import Adapter, Chain, Edit, Layer, Seat
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.decoder import KeysBefore, LanguageModel, LaterPlaces


class VirtualTokens(Adapter):
    """Puts learned tokens before every text.

    Every token of the text attends to them and comes at a later place. They are on or off in a row:
    their scale is 1 or 0.

    Args:
        options: The arguments of every adapter: `weights`, `name`, `key`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.begun: Final = self._begun()

    @abstractmethod
    def learned(self, seat: Seat) -> Layer:
        """Returns the layer with the keys and values of an attention."""

    def _begun(self) -> str | None:
        """Returns the key under which the decoder has read the tokens; None if it reads none."""
        return None

    def edits(self, model: LanguageModel) -> Iterable[Edit]:
        """Puts keys and values before those of the text, and moves its tokens to later places."""
        attends = model.slot("decoder.attend")
        windows = dict(zip([seat.path for seat in attends], model.config.windows, strict=False))

        def longer(inner: nn.Module, seat: Seat) -> nn.Module:
            window = windows.get(seat.path)
            return KeysBefore(self.learned(seat), inner, self.scale_key, window)

        def later(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(inner, LaterPlaces(self.scale_key, self.tokens_before, self.begun))

        return (
            *attends.wrap(longer, stage="inputs", name="before"),
            *model.slot("decoder.places").wrap(later, stage="output", name="later"),
        )

    def check(self, value: Any, request: Any) -> None:
        """Refuses scales between 0 and 1: learned tokens are there, or they are not.

        Raises:
            ConditionError: A scale is neither 0 nor 1, or differs between places.
        """
        by_place = request.row_scales.get(self.scale_key, {})
        rows = {*zip(*by_place.values(), strict=True)}
        if odd := [scale for row in rows for scale in row if scale not in (0, 1)]:
            raise ConditionError(
                f"{self.key} has the scale {odd[0]:g}, but learned tokens are before a text or are "
                "not: their scale is 1 or 0.",
                hint="Try Condition(scale=1), or [1, 0] for the first of two texts alone.",
            )
        if any(len({*row}) > 1 for row in rows):
            raise ConditionError(
                f"{self.key} has a scale by place, but learned tokens are in all layers of a text "
                "or in none.",
                hint="Try Condition(scale=1), or [1, 0] for the first of two texts alone.",
            )


def language_model(model: Any, key: str) -> LanguageModel:
    """Returns a model if it is a language model.

    Raises:
        AdapterError: The model is of another kind.
    """
    if isinstance(model, LanguageModel):
        return model
    raise AdapterError(
        f"{key} is for language models, not for a {type(model).__name__}.",
        hint='Load one: refiners.load_model("./folder").',
    )
