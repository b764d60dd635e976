"""Checks the source of a configuration without opening it."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any


def source_faults(reference: str, options: Mapping[str, Any], kind: str) -> list[str]:
    """Returns why a source cannot be opened, as far as its name and its options show.

    Args:
        reference: `package.module:function`.
        options: The keyword arguments of the function.
        kind: `pictures` or `texts`.
    """
    module, _, name = reference.partition(":")
    if not name:
        return [f'{reference!r} should be "package.module:function"']
    try:
        make = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        return [f"{reference!r} cannot be imported: {error}"]
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        return [f"{reference!r} cannot be made of {', '.join(options) or 'no options'}: {error}"]
    return []
