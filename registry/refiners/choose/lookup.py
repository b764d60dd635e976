"""Finds the installed adapter or model that a name stands for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from refiners.catalog import listed
from refiners.choose.compatibility import check_api
from refiners.choose.resolver import find
from refiners.errors import (
    IncompatibleError,
    OptionError,
    UnknownNameError,
    UnsupportedError,
)
from refiners.host.shell import quoted
from refiners.installed.inventory import Broken, Installed, scan
from refiners.manifest.schema import AdapterSpec, ModelSpec
from refiners_core import API_VERSION

S = TypeVar("S", AdapterSpec, ModelSpec)


def find_model(name: str) -> Installed[ModelSpec]:
    """Finds an installed model by name, and checks that this core can run it."""
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UnsupportedError(
            f"a model is loaded by name, from a path or a pipeline, not by {type(name).__name__}.",
            hint='Try refiners.load_model("playground").',
        )
    if name.startswith("hf:"):
        raise UnsupportedError(
            f"{name!r} is a repository, which does not have a manifest.",
            hint=f'Load it: refiners.load_model("{name}"), or {quoted("refiners", "fetch", name)}.',
        )
    inventory = scan()
    try:
        return _checked_api(look_up(name, inventory.models, inventory.broken, "model"))
    except UnknownNameError as error:
        if Path(name).exists():
            error.hint = f"For the folder or file of that name, write {Path('.', name).absolute()}."
        raise


def find_adapter(name: str) -> Installed[AdapterSpec]:
    """Finds an installed adapter by name, and checks that this core can run it."""
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(
            f"an adapter is loaded by name or from a path, not by a {type(name).__name__}.",
            hint='Try refiners.load_adapter("controlnet-canny", model).',
        )
    inventory = scan()
    try:
        return _checked_api(look_up(name, inventory.adapters, inventory.broken, "adapter"))
    except UnknownNameError as error:
        if Path(name).exists():
            error.hint = f"For the folder or file of that name, write {Path('.', name).absolute()}."
        raise


def look_up(
    name: str, installed: Sequence[Installed[S]], broken: Sequence[Broken], what: str
) -> Installed[S]:
    """Finds a name among installed plugins.

    The catalog is read only for names that are not installed, to suggest a package.

    Args:
        name: A short or a canonical name.
        installed: The installed adapters, models or both.
        broken: The installed packages that cannot be read.
        what: `adapter`, `model` or `adapter or model`, for messages.

    Raises:
        UnknownNameError, AmbiguousNameError, NotInstalledError: The name does not lead to exactly
            one installed plugin.
    """
    try:
        return find(name, installed, broken=broken, what=what)
    except UnknownNameError:
        catalog = [entry for entry in listed() if entry.kind in what]
        return find(name, installed, broken=broken, catalog=catalog, what=what)


def _checked_api(plugin: Installed[S]) -> Installed[S]:
    if refusal := check_api(plugin, API_VERSION):
        raise IncompatibleError(
            f"{plugin.name} does not run on this core:", (refusal,), dist=plugin.dist
        )
    return plugin
