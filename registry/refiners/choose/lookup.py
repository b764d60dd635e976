"""Finds the installed adapter or model that a name stands for."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
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
from refiners.manifest.schema import (
    MANIFESTS,
    AdapterSpec,
    KindName,
    ModelSpec,
    PreprocessorSpec,
    Spec,
)
from refiners_core import API_VERSION

S = TypeVar("S", bound=Spec)


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
        return _checked_api(look_up(name, inventory.models, inventory.broken, ("model",)))
    except UnknownNameError as error:
        if os.path.exists(name):
            error.hint = f"For the folder or file of that name, write {Path('.', name).absolute()}."
        raise


def find_adapter(name: str) -> Installed[AdapterSpec]:
    """Finds an installed adapter by name, and checks that this core can run it."""
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(
            f"an adapter is loaded by name or from a path, not by {type(name).__name__}.",
            hint='Try refiners.load_adapter("controlnet-canny", model).',
        )
    inventory = scan()
    try:
        adapters = inventory.adapters
        return _checked_api(look_up(name, adapters, inventory.broken, ("adapter",)))
    except UnknownNameError as error:
        if os.path.exists(name):
            error.hint = f"For the folder or file of that name, write {Path('.', name).absolute()}."
        raise


def find_preprocessor(name: str) -> Installed[PreprocessorSpec]:
    """Finds an installed preprocessor by name, and checks that this core can run it."""
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OptionError(
            f"a preprocessor is loaded by name, not by a {type(name).__name__}.",
            hint='Try refiners.load_preprocessor("canny").',
        )
    inventory = scan()
    plugins = inventory.preprocessors
    return _checked_api(look_up(name, plugins, inventory.broken, ("preprocessor",)))


def look_up(
    name: str,
    installed: Sequence[Installed[S]],
    broken: Sequence[Broken],
    kinds: Collection[KindName] = tuple(MANIFESTS),
) -> Installed[S]:
    """Finds a name among installed plugins.

    The catalog is read only for names that are not installed, to suggest a package.

    Args:
        name: A short or a canonical name.
        installed: The installed plugins of these kinds.
        broken: The installed packages that cannot be read.
        kinds: The kinds of plugins, all by default.

    Raises:
        UnknownNameError, AmbiguousNameError, NotInstalledError: The name does not lead to exactly
            one installed plugin.
    """
    *others, last = kinds
    what = f"{', '.join(others)} or {last}" if others else last
    try:
        return find(name, installed, broken=broken, what=what)
    except UnknownNameError:
        catalog = [entry for entry in listed() if entry.kind in kinds]
        return find(name, installed, broken=broken, catalog=catalog, what=what)


def _checked_api(plugin: Installed[S]) -> Installed[S]:
    if refusal := check_api(plugin, API_VERSION):
        raise IncompatibleError(
            f"{plugin.name} does not run on this core:", (refusal,), dist=plugin.dist
        )
    return plugin
