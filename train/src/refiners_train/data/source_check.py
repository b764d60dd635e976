"""Checks the source of a configuration without opening it."""

import inspect
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from refiners_train.data.data_error import DataError

SCHEMES: Final[Mapping[str, Mapping[str, str]]] = {
    "pictures": {"folder": "", "hf": "datasets", "datasets": "datasets", "wds": "webdataset"},
    "texts": {"folder": "", "jsonl": "", "hf": "datasets", "datasets": "datasets"},
}
"""For pictures and for texts, the schemes and the library that each needs."""
AT_COMMIT: Final = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")
"""A dataset of the Hub whose content never changes."""


def source_faults(reference: str, options: Mapping[str, Any], kind: str) -> list[str]:
    """Returns why a source cannot be opened, as far as its name and its options show.

    Args:
        reference: `package.module:function`, or a scheme and a place.
        options: The keyword arguments of the function, or the options of the scheme.
        kind: `pictures` or `texts`.
    """
    scheme, _, place = reference.partition(":")
    schemes = SCHEMES[kind]
    if not place:
        known = ", ".join(f"{name}:" for name in schemes)
        return [f'{reference!r} should be "package.module:function", or begin with {known}']
    if scheme in schemes:
        return [*_place_faults(scheme, place, schemes[scheme]), *_options(reference, options, kind)]
    other = next(name for name in SCHEMES if name != kind)
    if scheme in SCHEMES[other]:
        return [f"{reference!r} is a source of {other}, and this training reads {kind}"]
    return _function_faults(reference, scheme, place, options, kind)


def _place_faults(scheme: str, place: str, library: str) -> Iterator[str]:
    if library and find_spec(library) is None:
        yield (
            f"{scheme}: needs the library {library}, which is not installed: "
            f'pip install "refiners-train[{library}]"'
        )
    if scheme == "folder" and not Path(place).is_dir():
        yield f"{place} is not a folder"
    if scheme == "jsonl" and not Path(place).is_file():
        yield f"{place} is not a file"
    if library == "datasets" and not Path(place).exists() and not AT_COMMIT.fullmatch(place):
        name = place.partition("@")[0]
        yield f'{place!r} is neither a path nor a dataset at a commit, as "{scheme}:{name}@COMMIT"'


def _options(reference: str, options: Mapping[str, Any], kind: str) -> list[str]:
    from refiners_train.data.picture_spec import split_options
    from refiners_train.data.text_spec import split_text_options

    try:
        if kind == "pictures":
            split_options(reference, options)
        else:
            split_text_options(reference, options)
    except DataError as error:
        return [error.message.rstrip(".")]
    return []


def _function_faults(
    reference: str, module: str, name: str, options: Mapping[str, Any], kind: str
) -> list[str]:
    from refiners_train.data.text_spec import TOKEN_OPTIONS

    if kind == "texts":
        options = {key: value for key, value in options.items() if key not in TOKEN_OPTIONS}
    try:
        make = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        return [f"{reference!r} cannot be imported: {error}"]
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        return [f"{reference!r} cannot be made of {', '.join(options) or 'no options'}: {error}"]
    return []
