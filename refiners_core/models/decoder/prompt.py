"""The prompts of a generation of text: texts, conversations or tokens."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from refiners_core.errors import GenerationError, ModelError
from refiners_core.models.clip.prompt import broken_at
from refiners_core.models.decoder.tokenizer import TextTokenizer
from refiners_core.option import described


class PromptRows(NamedTuple):
    """The tokens of prompts."""

    tokens: list[list[int]]
    """The tokens of each prompt."""
    texts: list[str]
    """The texts of the prompts; empty for conversations and tokens."""
    is_single: bool
    """Whether the caller passed one prompt rather than a list."""


def read_prompts(prompt: Any, tokenizer: TextTokenizer | None, vocabulary: int) -> PromptRows:
    """Reads one prompt or a list of prompts.

    Args:
        prompt: A text; a conversation, which is a list of messages; a 1-d tensor of tokens; or a
            list of prompts of one kind.
        tokenizer: The tokenizer of the model.
        vocabulary: The number of tokens that the model knows.

    Raises:
        GenerationError: The prompt is of another type or empty, or a token is not in the
            vocabulary.
        ModelError: The model has no tokenizer, or no template for conversations.
    """
    is_single = isinstance(prompt, str) or _is_chat(prompt) or _is_row(prompt)
    prompts: list[Any] = [prompt] if is_single else _items(prompt)
    rows = [_tokens(item, tokenizer) for item in prompts]
    for row in rows:
        if not row:
            raise GenerationError(
                "an empty prompt has no token from which a text could follow.",
                hint="Begin with a word, such as prompt='The'.",
            )
        if unknown := [token for token in row if not 0 <= token < vocabulary]:
            raise GenerationError(
                f"token {unknown[0]} is not in the vocabulary of {vocabulary} tokens.",
                hint="Take the tokenizer of the folder that has the weights.",
            )
    texts = [item for item in prompts if isinstance(item, str)]
    return PromptRows(rows, texts, is_single)


def padded(
    rows: Sequence[Sequence[int]], padding: int, device: torch.device
) -> tuple[Int[Tensor, "rows tokens"], Bool[Tensor, "rows tokens"] | None]:
    """Returns rows of tokens at the right of a tensor, and True for each token that is not padding;
    None if none is.

    Args:
        rows: The tokens of each row.
        padding: The token that fills shorter rows.
        device: The device of the tensors.
    """
    width = max(map(len, rows))
    ids = torch.tensor([[padding] * (width - len(row)) + list(row) for row in rows], device=device)
    if all(len(row) == width for row in rows):
        return ids, None
    begins = torch.tensor([[width - len(row)] for row in rows], device=device)
    return ids, torch.arange(width, device=device) >= begins


def _tokens(prompt: Any, tokenizer: TextTokenizer | None) -> list[int]:
    if _is_row(prompt):
        return [int(token) for token in prompt]
    if not isinstance(prompt, str) and not _is_chat(prompt):
        raise _refusal(prompt)
    if tokenizer is None:
        raise ModelError(
            "this model has no tokenizer.",
            hint="Load a folder with tokenizer.json, or pass a tensor of tokens.",
        )
    if isinstance(prompt, str):
        _check_text(prompt)
        return tokenizer.tokens(prompt)
    for message in prompt:
        if not isinstance(message.get("role"), str) or "content" not in message:
            raise GenerationError(
                f"a message has role and content, not {', '.join(map(str, message)) or 'nothing'}.",
                hint='Try [{"role": "user", "content": "..."}].',
            )
        _check_text(str(message["content"]))
    return tokenizer.chat_tokens(prompt)


def _check_text(text: str) -> None:
    """Raises if a text has half of a surrogate pair, which is not a character."""
    if (place := broken_at(text)) is not None:
        raise GenerationError(
            f"the prompt has half of a character at {place}: {text[place]!r}.",
            hint='Try prompt.encode("utf-16", "surrogatepass").decode("utf-16", "replace").',
        )


def _items(prompt: Any) -> list[Any]:
    is_list = isinstance(prompt, list | tuple) or (isinstance(prompt, Tensor) and prompt.ndim == 2)
    items = list(prompt) if is_list else []
    if not items:
        raise _refusal(prompt)
    return items


def _is_chat(prompt: Any) -> bool:
    is_list = isinstance(prompt, list | tuple) and bool(prompt)
    messages: Sequence[Any] = prompt if is_list else ()
    return is_list and all(isinstance(message, Mapping) for message in messages)


def _is_row(prompt: Any) -> bool:
    return isinstance(prompt, Tensor) and prompt.ndim == 1 and not prompt.is_floating_point()


def _refusal(prompt: Any) -> GenerationError:
    return GenerationError(
        "prompt is a text, a list of messages or a 1-d tensor of tokens, or a list of prompts; not "
        f"{described(prompt)}.",
        hint='Try model.generate("Once upon a time").',
    )
