"""Fetches a file or folder that a user names, with the configurations beside it."""

from __future__ import annotations

import posixpath
from pathlib import Path

from refiners.choose.policy import Guard
from refiners.hub.client import Hub
from refiners.sources.fetch import fetch_all
from refiners.sources.given import CONFIGS, candidates, locate
from refiners.sources.links import linked
from refiners.sources.place import LocalPlace


def on_disk(given: str) -> Path:
    """Returns the path of a file or folder on this machine.

    Args:
        given: A path, or `hf:organisation/name[@revision][/path]`. Of a folder of the Hub, the
            weights are fetched and the configurations beside them.

    Raises:
        OptionError, MissingError: The file does not exist.
        NetworkError, IntegrityError, PolicyError: The file cannot be fetched as announced.
    """
    guard = Guard.from_environment()
    hub = Hub.from_environment(largest=guard.largest)
    place, name = locate(given, hub, guard)
    if isinstance(place, LocalPlace):
        return place.folder.expanduser() / name
    weights = [name] if name else [file for depth in candidates(place) for file in depth]
    beside = [posixpath.join(posixpath.dirname(n), config) for n in weights for config in CONFIGS]
    wanted = [*weights, *filter(place.has, dict.fromkeys(beside))]
    paths = fetch_all({file: place.file(file) for file in wanted}, hub)
    return linked(paths, hub.receipts.folder) / name
