"""Opens the texts that a configuration names, as tokens of a model."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from refiners_core.models.decoder import LanguageModel
from refiners_train.data.data_error import DataError
from refiners_train.data.example import TextExample, TextSource
from refiners_train.data.option import parted_options
from refiners_train.data.text_source import is_texts, open_texts
from refiners_train.data.token_rows import TokenRows


class TokenOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How texts become tokens; see `TokenRows`."""

    completions_only: bool = False
    max_tokens: Annotated[int, Meta(ge=2)] | None = None


TOKEN_OPTIONS: Final = TokenOptions.__struct_fields__
"""The options that all sources of texts have."""


def open_tokens(
    reference: str,
    options: Mapping[str, Any],
    model: LanguageModel,
    make: Callable[[str, Mapping[str, Any]], TextSource],
) -> TokenRows:
    """Opens a source of texts for a model.

    Args:
        reference: A scheme and a place, such as `jsonl:texts.jsonl`, or `package.module:function`.
        options: Those of `TokenOptions`, and those of the scheme or the function.
        model: The model.
        make: Calls a function by its name.

    Raises:
        DataError: An option is unknown or out of range, or the source has no texts.
    """
    for_tokens, rest = split_text_options(reference, options)
    texts = open_texts(reference, **rest) if is_texts(reference) else make(reference, rest)
    if len(texts) and not isinstance(texts.example(0, 0), TextExample):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DataError(
            f"{reference} has no texts, and {model.base} is a language model.",
            hint="Name a source of texts, or an image base in [base].",
        )
    return TokenRows(
        texts,
        model,
        completions_only=for_tokens.completions_only,
        max_tokens=for_tokens.max_tokens,
    )


def split_text_options(
    reference: str, options: Mapping[str, Any]
) -> tuple[TokenOptions, dict[str, Any]]:
    """Returns the options that all sources of texts have, and those of this one.

    Raises:
        DataError: An option is unknown or out of range.
    """
    opens = open_texts if is_texts(reference) else None
    return parted_options(reference, options, TokenOptions, opens)
