"""Functions that make control pictures from photos, for ControlNet, T2I-Adapter and their kin."""

from refiners_preprocessors.colour import blur, colour_palette, grey, shuffle, tile
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
