"""Sources by name: `package.module:function` and the schemes of this package."""

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from refiners_core.models.decoder import LanguageModel
from refiners_train.data.data_error import DataError
from refiners_train.data.example import TextExample
from refiners_train.data.picture_spec import is_pictures, open_pictures
from refiners_train.data.text_source import SCHEMES, is_texts, open_texts
from refiners_train.data.token_rows import TokenRows

TOKEN_OPTIONS = ("completions_only", "max_tokens")
"""The options of texts that say how they become tokens."""


def load_source(
    reference: str,
    options: Mapping[str, Any],
    *,
    model: Any,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """Returns the source that a configuration names.

    Args:
        reference: `package.module:function`, whose function returns a source; or a scheme and a
            place, such as `folder:./pictures`.
        options: The keyword arguments of the function or of the scheme.
        model: The base, for the size of pictures, its autoencoder and its tokenizer.
        seed: The seed of flips and random crops.
        progress: Is called with the numbers of encoded and of all pictures of a cache.

    Raises:
        DataError: The source does not exist, does not take the options, or cannot be read.
    """
    if isinstance(model, LanguageModel):
        return _tokens(reference, options, model)
    if is_pictures(reference):
        return open_pictures(
            reference,
            options,
            size=(model.size, model.size),
            seed=seed,
            autoencoder=model.autoencoder,
            progress=progress,
        )
    return _made(reference, options)


def _tokens(reference: str, options: Mapping[str, Any], model: LanguageModel) -> TokenRows:
    for_tokens = {name: options[name] for name in TOKEN_OPTIONS if name in options}
    rest = {name: value for name, value in options.items() if name not in TOKEN_OPTIONS}
    if not is_texts(reference):
        texts = _made(reference, rest)
    else:
        known = [*inspect.signature(open_texts).parameters][1:]
        if unknown := sorted(rest.keys() - set(known)):
            raise DataError(
                f"{reference} has no option {', '.join(unknown)}; it has "
                f"{', '.join([*known, *TOKEN_OPTIONS])}.",
                hint="Look at `options` in [data].",
            )
        texts = open_texts(reference, **rest)
    if len(texts) and not isinstance(texts.example(0, 0), TextExample):
        raise DataError(
            f"{reference} has no texts, and {model.base} is a language model.",
            hint="Name a source of texts, or an image base in [base].",
        )
    return TokenRows(texts, model, **for_tokens)


def _made(reference: str, options: Mapping[str, Any]) -> Any:
    module, _, name = reference.partition(":")
    if module in ("wds", *SCHEMES):
        raise DataError(
            f"the base reads no source `{module}:`.",
            hint="Pictures are `folder:`, `hf:` and `wds:`; texts `folder:`, `hf:` and `jsonl:`.",
        )
    try:
        make = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DataError(
            f"the source {reference!r} cannot be imported: {error}.",
            hint='Write source = "package.module:function", or "folder:./pictures".',
        ) from error
    try:
        return make(**options)
    except TypeError as error:
        raise DataError(
            f"the source {reference!r} cannot be made of {', '.join(options) or 'no options'}: "
            f"{error}.",
            hint="Look at `options` in [data].",
        ) from error
