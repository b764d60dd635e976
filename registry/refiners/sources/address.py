"""Decides whether an address on the Hub leads to a whole model or to an adapter."""

from __future__ import annotations

from pathlib import Path

from refiners.choose.lock import read_lock
from refiners.choose.policy import Guard
from refiners.errors import (
    AmbiguousNameError,
    NetworkError,
    NotInstalledError,
    OptionError,
    PolicyError,
    RefinersError,
)
from refiners.hub.client import Hub
from refiners.sources.given import examine, locate
from refiners.sources.reader import find_reader
from refiners.sources.recognition import identify_kind


def is_model(what: str, hub: Hub, guard: Guard | None = None, lock: str = "") -> bool:
    """Whether an address leads to a model rather than to a file of an adapter.

    An address of which nothing is known counts as that of a model, whose error is clearer.

    Args:
        what: `hf:organisation/name[@revision][/path]`.
        hub: The Hub, which is asked for the list of the repository and for a header.
        guard: The policy rules, checked before the Hub is asked.
        lock: The path of a lock, which answers in place of the Hub.

    Raises:
        NetworkError: The Hub does not answer.
        PolicyError: A rule refuses the organisation.
        OptionError, AmbiguousNameError, NotInstalledError: The address leads to several adapters,
            or to one that several of the installed packages read, or none.
    """
    if lock:
        plugins = read_lock(Path(lock)).plugin
        return not any(entry.id.partition("=")[2] == what for entry in plugins)
    place, name = locate(what, hub, guard)
    if not name:
        if place.has("model_index.json"):
            return True
        try:
            find_reader(what, hub, guard)
        except (NetworkError, PolicyError, OptionError, AmbiguousNameError, NotInstalledError):
            raise
        except RefinersError:
            return True
        return False
    try:
        fits = identify_kind(examine(what, place, name, hub).evidence)
    except NetworkError:
        raise
    except RefinersError:
        return True
    return not any(fit.is_readable for fit in fits)
