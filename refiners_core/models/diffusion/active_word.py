"""The words that the adapters of a model bring to its prompts in one generation."""

from collections.abc import Sequence
from typing import Final

from refiners_core.errors import ModelError
from refiners_core.model import Model
from refiners_core.surgery.adapter import Adapter
from refiners_core.tree.context import Context

EMBEDDING: Final = "text_encoder.embedding"
"""The slot at which adapters read the tokens of their words, once for each text encoder."""


def active_words(
    model: Model, reading: Context, encoders: int = 1
) -> list[dict[str, Sequence[int]]]:
    """Returns, for each text encoder, the ids of the words of active adapters, and writes the first
    id of each adapter to the context.

    Where the scale of an adapter is 0 at the embedding of an encoder, that encoder spells out its
    words.

    Args:
        model: The model that wears the adapters.
        reading: The context with the scales of the adapters that act.
        encoders: The number of text encoders.

    Raises:
        ModelError: Two active adapters bring the same word.
    """
    words: list[dict[str, Sequence[int]]] = [{} for _ in range(encoders)]
    known: set[str] = set()
    first = -1
    for adapter in model.adapters:
        if not adapter.words or adapter.scale_key not in reading:
            continue
        reading[adapter.context_key("words")] = first
        if duplicates := [word for word in adapter.words if word.lower() in known]:
            raise ModelError(
                f"{adapter.key} brings {min(duplicates)!r}, which another adapter brings as well.",
                hint="Eject one of them, or leave it out: conditions={adapter: None}.",
            )
        known |= {word.lower() for word in adapter.words}
        acts = _acting(model, adapter, reading)
        for word, counts in adapter.words.items():
            each = [counts] * encoders if isinstance(counts, int) else [*counts]
            for i, ids in enumerate(words):
                if i < len(each) and (i >= len(acts) or acts[i]):
                    ids[word] = range(first, first - each[i], -1)
            first -= max(each)
    return words


def _acting(model: Model, adapter: Adapter, reading: Context) -> list[bool]:
    """Returns whether an adapter acts at the embedding of each text encoder."""
    places = None if reading._places is None else reading._places.scales.get(adapter.key)
    if places is None:
        return []
    seats = model.slot(EMBEDDING) if EMBEDDING in model.slots else ()
    return [places.get(seat.path, 0) is not None for seat in seats]
