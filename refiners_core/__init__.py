"""Trees of layers, values that travel with a call, and surgery that can be undone.

Public names are imported on first use, so that reading errors and versions does not import torch.
"""

from typing import TYPE_CHECKING, Any, Final

from refiners_core.public import lazy_attribute, rooms

API_VERSION: Final = "1.0"
"""The version that a manifest's `core-api` must accept; it grows with the public names below."""

if TYPE_CHECKING:
    from refiners_core.advice import Advice as Advice
    from refiners_core.condition import Condition as Condition
    from refiners_core.model import Model as Model
    from refiners_core.preprocessor import FindPreprocessor as FindPreprocessor
    from refiners_core.preprocessor import NamedPreprocessor as NamedPreprocessor
    from refiners_core.preprocessor import Preprocessor as Preprocessor
    from refiners_core.surgery.adapter import Adapter as Adapter
    from refiners_core.surgery.merging import merging_copy as merging_copy
    from refiners_core.surgery.selection import Edit as Edit
    from refiners_core.surgery.selection import Selection as Selection
    from refiners_core.surgery.selection import select as select
    from refiners_core.surgery.slot import Slot as Slot
    from refiners_core.surgery.source import Source as Source
    from refiners_core.surgery.tree_index import Seat as Seat
    from refiners_core.tree.chain import Chain as Chain
    from refiners_core.tree.combinators import Concatenate as Concatenate
    from refiners_core.tree.combinators import Distribute as Distribute
    from refiners_core.tree.combinators import Identity as Identity
    from refiners_core.tree.combinators import Lambda as Lambda
    from refiners_core.tree.combinators import Multiply as Multiply
    from refiners_core.tree.combinators import Parallel as Parallel
    from refiners_core.tree.combinators import Passthrough as Passthrough
    from refiners_core.tree.combinators import Residual as Residual
    from refiners_core.tree.combinators import Scope as Scope
    from refiners_core.tree.combinators import SetContext as SetContext
    from refiners_core.tree.combinators import Sum as Sum
    from refiners_core.tree.combinators import UseContext as UseContext
    from refiners_core.tree.combinators import When as When
    from refiners_core.tree.context import Context as Context
    from refiners_core.tree.layer import Layer as Layer
    from refiners_core.tree.memory import Memory as Memory
    from refiners_core.tree.recall import Recall as Recall
    from refiners_core.tree.recall import Remember as Remember
    from refiners_core.tree.recall import Reuse as Reuse
    from refiners_core.tree.row_scale import RowScale as RowScale

_HOMES: Final[dict[str, str]] = {
    name: home
    for home, names in {
        "surgery.adapter": ("Adapter",),
        "surgery.merging": ("merging_copy",),
        "surgery.slot": ("Slot",),
        "surgery.source": ("Source",),
        "tree.chain": ("Chain",),
        "tree.combinators": (
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
        "advice": ("Advice",),
        "condition": ("Condition",),
        "tree.context": ("Context",),
        "tree.layer": ("Layer",),
        "tree.memory": ("Memory",),
        "tree.recall": ("Recall", "Remember", "Reuse"),
        "tree.row_scale": ("RowScale",),
        "model": ("Model",),
        "preprocessor": ("FindPreprocessor", "NamedPreprocessor", "Preprocessor"),
        "surgery.selection": ("Edit", "Selection", "select"),
        "surgery.tree_index": ("Seat",),
    }.items()
    for name in names
}

__all__ = ["API_VERSION", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _HOMES, name)


def __dir__() -> list[str]:
    special = (name for name in globals() if name.startswith("__"))
    return sorted([*special, *__all__, *rooms(__name__)])
