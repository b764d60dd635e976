"""Trees of layers, values that travel with a call, and surgery that can be undone.

Names are loaded when they are first asked for, so that reading errors and versions costs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

API_VERSION: Final = "1.0"
"""What a manifest's `core-api` is compared with; grows in step with the public names below."""

if TYPE_CHECKING:
    from refiners_core.adapter import Adapter as Adapter
    from refiners_core.chain import Chain as Chain
    from refiners_core.combinators import Concatenate as Concatenate
    from refiners_core.combinators import Distribute as Distribute
    from refiners_core.combinators import Identity as Identity
    from refiners_core.combinators import Lambda as Lambda
    from refiners_core.combinators import Multiply as Multiply
    from refiners_core.combinators import Parallel as Parallel
    from refiners_core.combinators import Passthrough as Passthrough
    from refiners_core.combinators import Residual as Residual
    from refiners_core.combinators import Scope as Scope
    from refiners_core.combinators import SetContext as SetContext
    from refiners_core.combinators import Sum as Sum
    from refiners_core.combinators import UseContext as UseContext
    from refiners_core.combinators import When as When
    from refiners_core.condition import Condition as Condition
    from refiners_core.context import Context as Context
    from refiners_core.layer import Layer as Layer
    from refiners_core.model import Model as Model
    from refiners_core.selection import Edit as Edit
    from refiners_core.selection import Selection as Selection
    from refiners_core.selection import select as select
    from refiners_core.source import Source as Source
    from refiners_core.survey import Seat as Seat

_HOMES: Final[dict[str, str]] = {
    name: home
    for home, names in {
        "adapter": ("Adapter",),
        "source": ("Source",),
        "chain": ("Chain",),
        "combinators": (
            *(
                "Concatenate",
                "Distribute",
                "Identity",
                "Lambda",
                "Multiply",
                "Parallel",
                "Passthrough",
            ),
            *("Residual", "Scope", "SetContext", "Sum", "UseContext", "When"),
        ),
        "condition": ("Condition",),
        "context": ("Context",),
        "layer": ("Layer",),
        "model": ("Model",),
        "selection": ("Edit", "Selection", "select"),
        "survey": ("Seat",),
    }.items()
    for name in names
}

__all__ = ["API_VERSION", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *__all__])
