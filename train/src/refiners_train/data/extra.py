"""Libraries that only some sources need."""

from importlib import import_module
from typing import Any

from refiners_train.data.data_error import DataError


def imported(library: str, *, extra: str) -> Any:
    """Imports a library of an extra of this package.

    Args:
        library: The module.
        extra: The extra of `refiners-train` that installs it.

    Raises:
        DataError: The library is not installed.
    """
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library.partition(".")[0]:
            raise
        raise DataError(
            f"this source needs the library {library}, which is not installed.",
            hint=f'pip install "refiners-train[{extra}]"',
        ) from error
