"""How adapters are told apart: by keys that sort the same in every process."""

import itertools
from collections.abc import Iterator
from typing import Final

from refiners_core.errors import AdapterError

_serials: Final[dict[str, Iterator[int]]] = {}


def next_key(name: str) -> str:
    """Returns the name, or for the second of a name in this process `name-2`, and so on."""
    serial = next(_serials.setdefault(name, itertools.count(1)))
    return name if serial == 1 else f"{name}-{serial}"


def natural(key: str) -> tuple[str, int, str]:
    """Returns what keys are sorted by, so that `lora-10` comes after `lora-9`."""
    head, _, tail = key.rpartition("-")
    return (head, int(tail), key) if head and tail.isdecimal() else (key, 1, key)


def checked_key(key: str) -> str:
    """Returns what is to be a key, if it may.

    Raises:
        AdapterError: It is empty, or has a sign in it that paths are put together with.
    """
    if not key or any(c in key for c in ".@+/"):
        raise AdapterError(
            f"{key!r} cannot be the key of an adapter.",
            hint="Use letters, digits and hyphens, e.g. ip-adapter-2.",
        )
    return key
