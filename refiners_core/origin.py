"""Where a model or an adapter comes from, as the recipe of a picture records it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Origin:
    """A canonical name, a version, and the hashes of files; no path of this machine."""

    id: str
    """The canonical name, such as `refiners-lora:lora`, or `hf:organisation/name@commit`."""
    version: str = ""
    """The version of the distribution; empty for files without one."""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """The sha256 of each file, by its role or its name; empty text if it is not known."""
    file: str = ""
    """The name of the user's own file, without its folder, or its address on the Hub."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The arguments with which the caller built it."""


OriginOf = Callable[[Any], Origin]
"""Returns the origin of a model or an adapter; the registry sets one on whatever it loads."""
