"""From what a caller names to what is installed under that name."""

from __future__ import annotations

from typing import TypeVar

from refiners.catalog import listed
from refiners.discover import Installed, scan
from refiners.errors import IncompatibleError, OptionError, UnsupportedError
from refiners.manifest import AdapterSpec, ModelSpec
from refiners.resolver import find
from refiners.verdict import check_api
from refiners_core import API_VERSION

S = TypeVar("S", AdapterSpec, ModelSpec)


def find_model(name: str) -> Installed[ModelSpec]:
    """Finds an installed model by name, and makes sure that this core can run it."""
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UnsupportedError(
            f"a model is loaded by name, from a path or a pipeline, not by {type(name).__name__}.",
            hint='Try refiners.load_model("playground").',
        )
    if name.startswith("hf:"):
        raise UnsupportedError(
            f"{name!r} is a repository, which has no manifest to look at.",
            hint=f'Load it: refiners.load_model("{name}"), or refiners fetch {name}.',
        )
    inventory = scan()
    known = [one for one in listed() if one.kind == "model"]
    found = find(name, inventory.models, broken=inventory.broken, catalog=known, what="model")
    return _checked_api(found)


def find_adapter(name: str) -> Installed[AdapterSpec]:
    """Finds an installed adapter by name, and makes sure that this core can run it."""
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(
            f"an adapter is loaded by name, not by a {type(name).__name__}.",
            hint='Try refiners.load_adapter("controlnet-canny", model).',
        )
    inventory = scan()
    known = [one for one in listed() if one.kind == "adapter"]
    found = find(name, inventory.adapters, broken=inventory.broken, catalog=known)
    return _checked_api(found)


def _checked_api(found: Installed[S]) -> Installed[S]:
    if refusal := check_api(found, API_VERSION):
        raise IncompatibleError(
            f"{found.name} does not run on this core:", (refusal,), dist=found.dist
        )
    return found
