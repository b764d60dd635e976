"""Where models are built."""

import pytest
import torch
from torch import nn

from refiners_core.errors import ModelError
from refiners_core.models import sd15, sdxl
from refiners_core.models.clip import ClipImageConfig, ClipImageEncoder
from refiners_core.models.device import built_on


@pytest.mark.parametrize("build", [sd15.build, sdxl.build, lambda device: image_encoder(device)])
def test_all_of_a_model_is_on_the_meta_device(build):
    tree = build(device="meta")
    assert {tensor.device.type for tensor in (*tree.parameters(), *tree.buffers())} == {"meta"}
    assert tree.dtype == torch.float32


def image_encoder(device):
    with built_on(device):
        return ClipImageEncoder(ClipImageConfig())


def test_an_explicit_device_is_kept():
    with built_on("meta"):
        on_cpu, on_meta = torch.zeros(1, device="cpu"), torch.randn(2, device=None)
        assert torch.get_default_device().type == "cpu"
    assert (on_cpu.device.type, on_meta.device.type) == ("cpu", "meta")
    assert torch.ones(1).device.type == "cpu"


def test_on_other_devices_layers_have_initial_values():
    with built_on("cpu"):
        norm, linear = nn.LayerNorm(3), nn.Linear(9, 9)
    assert norm.weight.tolist() == [1, 1, 1]
    assert 0 < linear.weight.abs().max() <= 1 / 3


def test_an_unknown_device_is_refused_by_name():
    with pytest.raises(ModelError, match="'gpu' is not a device"), built_on("gpu"):
        pass
