"""Loads base models and adapters by name: finds, checks, fetches and verifies them.

Example:
    >>> import refiners
    >>> model = refiners.load_model("playground")
    >>> canny = refiners.load_adapter("controlnet-canny", model)

Importing this package loads neither torch nor a plugin; each name is imported on first use.
"""

from importlib import import_module
from os.path import dirname, isfile, join
from typing import TYPE_CHECKING, Any, Final

from refiners_core.public import lazy_attribute, rooms

if TYPE_CHECKING:
    from refiners.errors import AccessError as AccessError
    from refiners.errors import AmbiguousNameError as AmbiguousNameError
    from refiners.errors import CacheError as CacheError
    from refiners.errors import CatalogError as CatalogError
    from refiners.errors import DeprecationNotice as DeprecationNotice
    from refiners.errors import IncompatibleError as IncompatibleError
    from refiners.errors import IntegrityError as IntegrityError
    from refiners.errors import LockError as LockError
    from refiners.errors import MachineError as MachineError
    from refiners.errors import ManifestError as ManifestError
    from refiners.errors import MissingError as MissingError
    from refiners.errors import NetworkError as NetworkError
    from refiners.errors import Notice as Notice
    from refiners.errors import NotInstalledError as NotInstalledError
    from refiners.errors import OfflineError as OfflineError
    from refiners.errors import OptionError as OptionError
    from refiners.errors import PluginError as PluginError
    from refiners.errors import PolicyError as PolicyError
    from refiners.errors import RefinersError as RefinersError
    from refiners.errors import SettingError as SettingError
    from refiners.errors import UnknownNameError as UnknownNameError
    from refiners.errors import UnsupportedError as UnsupportedError
    from refiners.exhibit import Exhibit as Exhibit
    from refiners.exhibit import run_example as run_example
    from refiners.installed.example import Example as Example
    from refiners.installed.example import examples as examples
    from refiners.installed.inventory import adapters as adapters
    from refiners.installed.inventory import broken as broken
    from refiners.installed.inventory import models as models
    from refiners.installed.inventory import preprocessors as preprocessors
    from refiners.load import load_adapter as load_adapter
    from refiners.load import load_model as load_model
    from refiners.load import load_untrained as load_untrained
    from refiners.measure import load_measure as load_measure
    from refiners.measure import measures as measures
    from refiners.preprocessing import load_preprocessor as load_preprocessor
    from refiners.recipe.form import Recipe as Recipe
    from refiners.recipe.read import read_recipe as read_recipe
    from refiners.remake import regenerate as regenerate

_HOMES: Final[dict[str, str]] = {
    name: home
    for home, names in {
        "errors": (
            *("AccessError", "AmbiguousNameError", "CacheError", "CatalogError"),
            *("DeprecationNotice", "IncompatibleError", "Notice"),
            *("IntegrityError", "LockError", "MachineError", "ManifestError", "MissingError"),
            *("NetworkError", "SettingError"),
            *("NotInstalledError", "OfflineError", "OptionError", "PluginError", "PolicyError"),
            *("RefinersError", "UnknownNameError", "UnsupportedError"),
        ),
        "exhibit": ("Exhibit", "run_example"),
        "installed.example": ("Example", "examples"),
        "installed.inventory": ("adapters", "broken", "models", "preprocessors"),
        "load": ("load_adapter", "load_model", "load_untrained"),
        "measure": ("load_measure", "measures"),
        "preprocessing": ("load_preprocessor",),
        "recipe.form": ("Recipe",),
        "recipe.read": ("read_recipe",),
        "remake": ("regenerate",),
    }.items()
    for name in names
}

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


if isfile(join(dirname(__file__), "fluxion", "__init__.py")):  # a file of another distribution
    import_module(f"{__name__}.installed.namesake").warn()


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _HOMES, name)


def __dir__() -> list[str]:
    special = (name for name in globals() if name.startswith("__"))
    return sorted([*special, *__all__, *rooms(__name__)])
