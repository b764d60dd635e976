"""Sources by name: `package.module:function` and the schemes of this package."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from refiners_core.models.decoder import LanguageModel
from refiners_train.data.data_error import DataError
from refiners_train.data.picture_spec import is_pictures, open_pictures
from refiners_train.data.text_spec import open_tokens


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
        model: The base, for the size of pictures, its autoencoder and its tokenizer; on the meta
            device no picture is read.
        seed: The seed of flips and random crops.
        progress: Is called with the numbers of encoded and of all pictures of a cache.

    Raises:
        DataError: The source does not exist, does not take the options, or cannot be read.
    """
    if isinstance(model, LanguageModel):
        return open_tokens(reference, options, model, _made)
    if is_pictures(reference):
        is_outline = model.device.type == "meta"
        return open_pictures(
            reference,
            {**options, "check": False} if is_outline else options,
            size=(model.size, model.size),
            seed=seed,
            autoencoder=None if is_outline else model.autoencoder,
            progress=progress,
        )
    return _made(reference, options)


def _made(reference: str, options: Mapping[str, Any]) -> Any:
    module, _, name = reference.partition(":")
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
