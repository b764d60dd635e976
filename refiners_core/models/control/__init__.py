"""ControlNet: a side network of a UNet that reads a conditioning image (arXiv:2302.05543)."""

from refiners_core.models.control.control import RELEASED_CHANNELS, Control, build_control
from refiners_core.models.control.edit import control_edits
from refiners_core.models.control.layout import CONTROL_KEYS, condition_channels
from refiners_core.models.control.network import ConditionEncoder, ControlNetwork

__all__ = [
    "CONTROL_KEYS",
    "RELEASED_CHANNELS",
    "ConditionEncoder",
    "Control",
    "ControlNetwork",
    "build_control",
    "condition_channels",
    "control_edits",
]
