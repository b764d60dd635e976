"""The names that files use for the layers of a language model: those of transformers."""

from collections.abc import Iterator
from typing import Any, Final

from refiners_lora.layer_name import Place

LANGUAGE_SLOTS: Final = ("decoder.linear", "decoder.head", "decoder.embed", "decoder.norm")
"""The slots of the layers of a language model that a file can change."""
LANGUAGE_PART: Final = "decoder"
"""The part of a language model that contains these layers."""
_BODIES: Final = ("model", "transformer")
"""The words for the network without its head, which names lack if that was trained alone."""


def is_language_model(model: Any) -> bool:
    """Whether a model is a language model, by its slots."""
    return any(slot in model.slots for slot in LANGUAGE_SLOTS)


def language_places(model: Any) -> dict[str, tuple[Place, ...]]:
    """Returns the layers of a language model under each name that a file may use.

    A published layer may be several of the model, each with its share.

    Args:
        model: A model; without slots of a decoder there are none.
    """
    places: dict[str, tuple[Place, ...]] = {}
    for slot in (slot for slot in LANGUAGE_SLOTS if slot in model.slots):
        for part, named in model.published_places(slot).items():
            for name, seats in named.items():
                layers = tuple([Place(seat, part, name, how) for seat, how in seats])
                places |= dict.fromkeys(_spelled(name), layers)
    return places


def _spelled(name: str) -> Iterator[str]:
    yield name
    body, _, rest = name.partition(".")
    if body in _BODIES:
        yield rest
