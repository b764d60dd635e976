"""Loads preprocessors by name, and finds those that the manifest of an adapter declares."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refiners.choose.admission import guarded
from refiners.choose.lock import held
from refiners.choose.lookup import find_preprocessor
from refiners.errors import AmbiguousNameError, UnknownNameError
from refiners.installed.factory import build_preprocessor
from refiners.installed.hook_modules import load_hooks
from refiners.installed.inventory import Installed
from refiners.manifest.schema import AdapterSpec, Input
from refiners.sources.fetch import fetch_source

if TYPE_CHECKING:
    from refiners_core import NamedPreprocessor, Preprocessor, Source


def load_preprocessor(
    name: str,
    *,
    offline: bool | None = None,
    lock: str | Path | None = None,
    **options: Any,
) -> Preprocessor:
    """Loads a preprocessor by name: a function that makes a control picture from a photo.

    Args:
        name: A name, such as `canny` or `distribution:name`.
        offline: Whether to stay offline; None reads REFINERS_OFFLINE and HF_HUB_OFFLINE.
        lock: The `refiners.lock` that pins the preprocessor; None reads REFINERS_LOCK.
        **options: Keyword arguments of the preprocessor, such as the thresholds of `canny`.

    Returns:
        A function of a picture and, optionally, `size=(width, height)`.

    Raises:
        UnknownNameError, AmbiguousNameError, NotInstalledError: The name does not lead to exactly
            one installed preprocessor.
        OptionError: The preprocessor does not take an option.
        LockError: The preprocessor is not in the lock, or differs from it.
        NetworkError, IntegrityError, CacheError: Its weights cannot be fetched as pinned.
        PolicyError: A rule of the project or the user, or an advisory, refuses it.
        PluginError: Its code failed.
    """
    load_hooks()
    plugin = held(find_preprocessor(name), lock)
    guard = guarded(plugin, lock)

    def weights() -> Source:
        roles = {role: role for role in plugin.spec.weights}
        return fetch_source(plugin, roles, plugin.name, {}, offline=offline, guard=guard)

    return build_preprocessor(plugin, weights, options)


@dataclass(frozen=True)
class PreprocessorsOf:
    """Finds the preprocessors that the manifest of an adapter declares, and loads each once.

    Args:
        adapter: The installed adapter.
        offline: Whether to stay offline.
        lock: The lock that pins the adapter, which then pins its preprocessors.
    """

    adapter: Installed[AdapterSpec]
    offline: bool | None
    lock: str | Path | None
    _loaded: dict[str, Preprocessor] = field(default_factory=dict[str, Any], compare=False)

    def __call__(self, role: str, name: str = "") -> NamedPreprocessor | None:
        """Returns the preprocessor of an input; None if the manifest declares none for it.

        Args:
            role: The input; empty for the only one.
            name: The preprocessor to use instead of the declared one.

        Raises:
            UnknownNameError, AmbiguousNameError, NotInstalledError: The name does not lead to
                exactly one installed preprocessor.
            LockError, PolicyError: The lock, a rule or an advisory refuses it.
        """
        from refiners_core import NamedPreprocessor

        declared = self._declared(role)
        if not declared and (role or not name):
            return None
        wanted = name or (declared.preprocessor if declared else "")
        try:
            plugin = held(find_preprocessor(wanted), self.lock)
        except AmbiguousNameError as error:
            error.hint = f'Choose one: Condition(picture, preprocess="{error.choices[0]}").'
            raise
        except UnknownNameError as error:
            if declared and not name:
                error.hint = f"Pass {declared.summary} instead of a photo, without preprocessing."
            raise
        guarded(plugin, self.lock)
        return NamedPreprocessor(
            plugin.id,
            partial(self._load, plugin.id),
            has_weights=bool(plugin.spec.weights),
            version=plugin.version,
        )

    def _declared(self, role: str) -> Input | None:
        """Returns the input of the manifest, if it declares a preprocessor."""
        inputs = self.adapter.spec.input
        given = inputs.get(role) if role else next(iter(inputs.values()), None)
        return given if given and given.preprocessor else None

    def _load(self, id: str) -> Preprocessor:
        if id not in self._loaded:
            self._loaded[id] = load_preprocessor(id, offline=self.offline, lock=self.lock)
        return self._loaded[id]
