"""The rules for the words that prompts may have."""

from refiners_core.errors import AdapterError
from refiners_core.models.clip import ClipTokenizer, parse_weights


def check_word(word: str) -> None:
    """Checks that a prompt can contain a word.

    Raises:
        AdapterError: The word is empty, begins or ends with a space, or is the notation of prompt
            weighting.
    """
    is_text = isinstance(word, str) and word  # pyright: ignore[reportUnnecessaryIsInstance]
    if not is_text or word != word.strip() or parse_weights(word) != [(word, 1.0)]:
        raise AdapterError(
            f"{word!r} cannot be a word of a prompt.", hint='Pass another: word="<cat>".'
        )


def check_new(word: str, count: int, tokenizer: ClipTokenizer, base: str, origin: str) -> None:
    """Checks that a word is new to a model, and that its tokens fit into a prompt.

    Args:
        word: The word.
        count: The number of its tokens.
        tokenizer: The tokenizer of the model.
        base: The name of the model's family.
        origin: The file of the word, or the adapter, for messages.

    Raises:
        AdapterError: The model knows the word, or the tokens are too many.
    """
    if len(tokenizer.tokens(word)) < 2:
        raise AdapterError(
            f"{origin} brings {word!r}, which is a word that this {base} knows already.",
            hint=f'Pass another: word="<{word.strip("<|>")}>".',
        )
    room = tokenizer.length - 2
    if count > room:
        raise AdapterError(
            f"{origin} brings {word!r} of {count} vectors; this {base} reads {room} tokens at a "
            "time.",
            hint="Give a textual inversion with fewer vectors.",
        )
