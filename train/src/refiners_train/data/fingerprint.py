"""Fingerprints: short texts that change with what they were made of."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any


def fingerprint_of(parts: Iterable[Any]) -> str:
    """Returns the first 16 hexadecimal digits of the sha256 of parts, which JSON can write.

    Example:
        >>> fingerprint_of(["a", 1])
        '5d5e06e867c8da84'
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()[:16]
