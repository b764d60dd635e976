"""ControlNet: a side network of a UNet that reads a conditioning image (arXiv:2302.05543)."""

from refiners_core.models.control.change import LayerChange
from refiners_core.models.control.checkpoint import (
    ControlFile,
    check_finite_weights,
    check_text_width,
)
from refiners_core.models.control.control import RELEASED_CHANNELS, Control, build_control
from refiners_core.models.control.edit import control_edits
from refiners_core.models.control.layout import (
    CONTROL_KEYS,
    condition_channels,
    ldm_control_keys,
)
from refiners_core.models.control.network import (
    ConditionEncoder,
    ControlNetwork,
    control_outputs,
    control_trunk,
)
from refiners_core.models.control.shared import (
    SharedControl,
    network_path,
    shape_of_change,
    shared_layers,
)
from refiners_core.models.control.side_network import SideNetwork
from refiners_core.models.control.weighting import guess_weights

__all__ = [
    "CONTROL_KEYS",
    "RELEASED_CHANNELS",
    "ConditionEncoder",
    "Control",
    "ControlFile",
    "ControlNetwork",
    "LayerChange",
    "SharedControl",
    "SideNetwork",
    "build_control",
    "check_finite_weights",
    "check_text_width",
    "condition_channels",
    "control_edits",
    "control_outputs",
    "control_trunk",
    "guess_weights",
    "ldm_control_keys",
    "network_path",
    "shape_of_change",
    "shared_layers",
]
