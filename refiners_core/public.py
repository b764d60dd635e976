"""The public boundary: the modules whose names other packages may import.

The names of a public module are those in its `__all__`. `API_VERSION` covers all of them: a name
that goes away, or changes what it takes, raises the version that manifests compare with. Every
other module may change at any time. `refiners api` prints the list.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

MODULES: Final = (
    "refiners_core",
    "refiners_core.command",
    "refiners_core.compose",
    "refiners_core.errors",
    "refiners_core.hookspecs",
    "refiners_core.layers",
    "refiners_core.measure",
    "refiners_core.models.clip",
    "refiners_core.models.control",
    "refiners_core.models.decoder",
    "refiners_core.models.device",
    "refiners_core.models.diffusion",
    "refiners_core.models.dino",
    "refiners_core.models.face",
    "refiners_core.models.formats",
    "refiners_core.models.image_prompt",
    "refiners_core.models.samplers",
    "refiners_core.models.sd15",
    "refiners_core.models.sdxl",
    "refiners_core.models.t5",
    "refiners_core.models.unet",
    "refiners_core.models.vae",
    "refiners_core.option",
    "refiners_core.picture",
    "refiners_core.testing",
    "refiners_core.weights",
    "refiners",
    "refiners.errors",
    "refiners.testing",
)


def public_names(module: str) -> tuple[str, ...]:
    """Returns the public names of a public module, sorted; importing it may load torch.

    Raises:
        KeyError: The module is not public.
    """
    if module not in MODULES:
        raise KeyError(module)
    return tuple(sorted(import_module(module).__all__))


def rooms(package: str) -> tuple[str, ...]:
    """Returns the names directly under a package that lead to public modules, sorted."""
    start = f"{package}."
    below = (module.removeprefix(start) for module in MODULES if module.startswith(start))
    return tuple(sorted({name.partition(".")[0] for name in below}))


def lazy_attribute(package: str, homes: Mapping[str, str], name: str) -> Any:
    """Imports a public name or room of a package when it is first asked for.

    Args:
        package: The package, such as `refiners_core`.
        homes: The module of each public name, relative to the package.
        name: The name that was asked for.

    Raises:
        AttributeError: The package does not have the name.
    """
    if name in homes:
        return getattr(import_module(f"{package}.{homes[name]}"), name)
    if name in rooms(package):
        return import_module(f"{package}.{name}")
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
