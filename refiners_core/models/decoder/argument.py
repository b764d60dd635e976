"""Checks of the arguments of a generation of text, made before the network runs."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from refiners_core import option
from refiners_core.errors import GenerationError
from refiners_core.models.decoder.config import DecoderConfig
from refiners_core.models.decoder.defaults import GenerationDefaults
from refiners_core.models.decoder.sampling import Sampling

_number: Final = partial(option.number, error=GenerationError)


def sampling(
    known: GenerationDefaults,
    temperature: Any,
    top_k: Any,
    top_p: Any,
    min_p: Any,
    repetition_penalty: Any,
) -> Sampling:
    """Returns how tokens are chosen; values of None follow the publisher of the model.

    Raises:
        GenerationError: A value has a wrong type or is out of range, or filters are passed although
            nothing is drawn.
    """
    temperature = _number("temperature", temperature, 0.7, low=0, high=100)
    given: Mapping[str, Any] = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
    if temperature == 0 and (filters := [name for name in given if given[name] is not None]):
        names = " and ".join(filters)
        raise GenerationError(
            f"temperature=0 takes the likeliest token, so nothing is drawn; got {names}.",
            hint=f"Try temperature=0.7, or leave {names} out.",
        )
    penalty = known.repetition_penalty if repetition_penalty is None else repetition_penalty
    return Sampling(
        temperature=temperature,
        top_k=known.top_k
        if top_k is None
        else option.whole("top_k", top_k, 40, error=GenerationError),
        top_p=known.top_p if top_p is None else _number("top_p", top_p, 0.9, low=0, high=1),
        min_p=known.min_p if min_p is None else _number("min_p", min_p, 0.05, low=0, high=1),
        repetition_penalty=_number("repetition_penalty", penalty, 1.1, low=0.01, high=100),
    )


def stops(value: Any) -> tuple[str, ...]:
    """Returns the texts that end a generation.

    Raises:
        GenerationError: A stop is not a text, or is empty.
    """
    items = [value] if isinstance(value, str) else value
    is_list = isinstance(items, list | tuple)
    texts: list[Any] = [] if items is None else list(items) if is_list else [None]
    if not all(isinstance(item, str) and item != "" for item in texts):
        raise GenerationError(
            f"stop is a text or a list of texts, not {option.described(value)}.",
            hint='Try stop=["\\n\\n"].',
        )
    return tuple(texts)


def check_length(
    config: DecoderConfig, lengths: Sequence[int], most: int, before: Sequence[int]
) -> None:
    """Raises if a prompt is too long for a model.

    Args:
        config: The sizes of the decoder.
        lengths: The number of tokens of each prompt.
        most: The number of new tokens, at most; 0 if none is generated.
        before: The number of tokens that adapters put before each prompt.

    Raises:
        GenerationError: A prompt fills all places for which the model was trained, or the places
            of the tokens that follow have no learned features.
    """
    length, more = max(zip(lengths, before, strict=True), key=sum)
    total = length + more
    count = f"{length} tokens" + (f", after {more} of adapters," if more else "")
    if total + bool(most) > config.places:
        raise GenerationError(
            f"a prompt of {count} is too long for a model of {config.places}.",
            hint=f"Shorten the prompt{', or eject an adapter' if more else ''}.",
        )
    if config.rope is None and total + most > config.places:
        raise GenerationError(
            f"a prompt of {count} and {most} new ones are more than the {config.places} "
            "places of the model.",
            hint=f"Try max_new_tokens={config.places - total}.",
        )
