"""The keys that tell adapters apart and sort the same in every process."""

import itertools
from collections.abc import Iterator
from typing import Final

from refiners_core.errors import AdapterError

_serials: Final[dict[str, Iterator[int]]] = {}


def next_key(name: str) -> str:
    """Returns `name` at the first call with it in this process, then `name-2` and so on."""
    serial = next(_serials.setdefault(name, itertools.count(1)))
    return name if serial == 1 else f"{name}-{serial}"


def natural(key: str) -> tuple[str, int, str]:
    """Returns the sort key of a key, so that `lora-10` comes after `lora-9`."""
    head, _, tail = key.rpartition("-")
    return (head, int(tail), key) if head and tail.isdecimal() else (key, 1, key)


def checked_key(key: str) -> str:
    """Returns `key` if an adapter may have it.

    Raises:
        AdapterError: The key is empty or contains a separator of paths: . @ + or /.
    """
    if not key or any(c in key for c in ".@+/"):
        raise AdapterError(
            f"{key!r} cannot be the key of an adapter.",
            hint="Use letters, digits and hyphens, e.g. ip-adapter-2.",
        )
    return key
