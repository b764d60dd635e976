"""The options of a source: those that all of its kind have, and its own."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from refiners_train.data.data_error import DataError

Common = TypeVar("Common", bound=msgspec.Struct)

_HINT = "Look at `options` in [data]."


def parted_options(
    reference: str,
    options: Mapping[str, Any],
    common: type[Common],
    opens: Callable[..., Any] | None,
) -> tuple[Common, dict[str, Any]]:
    """Returns the options that all sources of a kind have, and those of this one.

    Args:
        reference: The name of the source, for messages.
        options: All options.
        common: The options that all sources of the kind have.
        opens: The function that takes the source's own options after its place; None if its
            options are not known here.

    Raises:
        DataError: An option is unknown, or one that all have is out of range.
    """
    names = common.__struct_fields__
    rest = {name: value for name, value in options.items() if name not in names}
    if opens is not None:
        known = [*inspect.signature(opens).parameters][1:]
        if unknown := sorted(rest.keys() - set(known)):
            raise DataError(
                f"{reference} has no option {', '.join(unknown)}; it has "
                f"{', '.join([*known, *names])}.",
                hint=_HINT,
            )
    try:
        shared = {name: value for name, value in options.items() if name in names}
        return msgspec.convert(shared, common), rest
    except msgspec.ValidationError as error:
        raise DataError(f"the options of {reference} have a fault: {error}.", hint=_HINT) from error
