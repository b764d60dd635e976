"""Sources by name: `package.module:function` and the schemes of this package."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from refiners_train.data.data_error import DataError


def load_source(reference: str, options: Mapping[str, Any], *, model: Any, seed: int = 0) -> Any:
    """Returns the source that a configuration names.

    Args:
        reference: `package.module:function`; the function returns a `Source`.
        options: The keyword arguments of the function.
        model: The base.
        seed: The seed of augmentation.

    Raises:
        DataError: The module or the function does not exist, or does not take the options.
    """
    module, _, name = reference.partition(":")
    try:
        make = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DataError(
            f"the source {reference!r} cannot be imported: {error}.",
            hint='Write source = "package.module:function".',
        ) from error
    try:
        return make(**options)
    except TypeError as error:
        raise DataError(
            f"the source {reference!r} cannot be made of {', '.join(options) or 'no options'}: "
            f"{error}.",
            hint="Look at `options` in [data].",
        ) from error
