"""A ControlNet's difference from the base, as a Control-LoRA."""

from pathlib import Path
from typing import Any

import pytest
import torch
from refiners_controllora.adapter import ControlLora
from refiners_controllora.extract import extract, factors

from refiners_core import Source
from refiners_core.errors import WeightsError
from refiners_core.models.control import CONTROL_KEYS, build_control
from refiners_core.testing import tiny_model
from refiners_core.weights import save, write


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a ControlNet for the tiny model."""
    parts = build_control(
        tiny_model(), None, features="features", scale="scale", channels=(4, 8, 8)
    )
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in parts.parameters():
            weight.copy_(torch.randn(weight.shape, generator=noise) * 0.2)
    path = tmp_path_factory.mktemp("control") / "control.safetensors"
    save(parts, path, CONTROL_KEYS)
    return path


def outputs(network: torch.nn.Module, features: str, scale: str) -> Any:
    values = {"timestep": torch.tensor(7), "text": torch.ones(1, 5, 8)}
    values |= {features: torch.ones(1, 8, 8, 8), scale: torch.tensor(1.0)}
    return network(torch.ones(1, 4, 8, 8), context=values)


@torch.no_grad()
def test_at_full_rank_the_network_is_that_of_the_controlnet(control: Path, tmp_path: Path):
    model = tiny_model()
    whole = build_control(model, control, features="features", scale="scale")
    expected = outputs(whole.network, "features", "scale")
    errors: list[float] = []
    for rank in (2, 1000):
        path = tmp_path / f"rank{rank}.safetensors"
        extract(control, model, rank, path)
        adapter = ControlLora(weights=lambda _, path=path: Source({"weights": path}))
        adapter.inject(model).eject()
        made = outputs(adapter.parts.network(model.unet), adapter.features_key, adapter.scale_key)
        pairs = zip(made, expected, strict=True)
        errors.append(max(float((a - b).norm() / b.norm()) for a, b in pairs))
    assert errors[0] > 1e-2
    assert errors[1] <= 1e-5


def test_the_factors_are_the_best_of_their_rank():
    matrix = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    up, down = factors(matrix, 2)
    assert (up.shape, down.shape) == ((3, 2), (2, 3))
    assert torch.allclose(up @ down, torch.diag(torch.tensor([3.0, 2.0, 0.0])), atol=1e-6)


def test_a_difference_is_refused(control: Path, tmp_path: Path):
    from refiners_core.weights import read

    write({**read(control), "difference": torch.zeros(0)}, tmp_path / "difference.safetensors")
    with pytest.raises(WeightsError, match="is a difference, or lacks layers"):
        extract(tmp_path / "difference.safetensors", tiny_model(), 2, tmp_path / "lora.safetensors")
