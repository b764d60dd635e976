"""Functions that make control pictures from photos, for ControlNet, T2I-Adapter and their kin."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from refiners_preprocessors.colour import (
        blur,
        colour_palette,
        grey,
        shuffle,
        tile,
    )
    from refiners_preprocessors.depth import DepthEstimator
    from refiners_preprocessors.edge import canny, soft_edge
    from refiners_preprocessors.keypoint import draw_keypoints
    from refiners_preprocessors.line import lineart, scribble
    from refiners_preprocessors.mask import inpaint_mask

__all__ = [
    "DepthEstimator",
    "blur",
    "canny",
    "colour_palette",
    "draw_keypoints",
    "grey",
    "inpaint_mask",
    "lineart",
    "scribble",
    "shuffle",
    "soft_edge",
    "tile",
]

_HOMES: Final = {
    "DepthEstimator": "depth",
    "blur": "colour",
    "canny": "edge",
    "colour_palette": "colour",
    "draw_keypoints": "keypoint",
    "grey": "colour",
    "inpaint_mask": "mask",
    "lineart": "line",
    "scribble": "line",
    "shuffle": "colour",
    "soft_edge": "edge",
    "tile": "colour",
}
"""The module of each name, imported when it is first used: modules load torch."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
