"""Components that are where they are needed only while they are, in several dtypes."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from refiners_core.errors import GenerationError
from refiners_core.models.device import moved
from refiners_core.models.diffusion import coding, generation
from refiners_core.models.samplers import SAMPLERS


def run(model, **arguments):
    return model.generate(
        "a red circle",
        **{"steps": 4, "seed": 7, "output": "latents", "progress": False} | arguments,
    )


def places(model):
    return {name: weight.data_ptr() for name, weight in model.named_parameters()}


def test_a_moved_part_gets_its_tensors_back(model):
    before = places(model)
    with moved(model.unet, torch.device("meta")):
        assert all(weight.is_meta for weight in model.unet.parameters())
        assert not any(weight.is_meta for weight in model.text_encoder.parameters())
    assert places(model) == before


def test_a_part_is_moved_back_after_an_error(model):
    before = places(model)
    with pytest.raises(ZeroDivisionError), moved(model.unet, torch.device("meta")):
        raise ZeroDivisionError
    assert places(model) == before


def test_buffers_and_shared_weights_move_as_well():
    norm, linear = nn.BatchNorm1d(3), nn.Linear(3, 3)
    tied = nn.Sequential(norm, linear, linear)
    with moved(tied, torch.device("meta")):
        assert norm.running_mean.is_meta
        assert tied[2].weight is linear.weight
    assert norm.running_mean.device.type == "cpu"


def test_one_component_at_a_time_is_moved(model, monkeypatch):
    seen = []

    @contextmanager
    def recorded(part, device):
        name = next(name for name, child in model.named_children() if child is part)
        seen.append((f"{name} there", str(device)))
        yield
        seen.append(f"{name} back")

    for module in (generation, coding):
        monkeypatch.setattr(module, "moved", recorded)
    run(model, offload="cpu", image=torch.rand(1, 3, 32, 32), output="tensor")
    parts = ["text_encoder", "autoencoder", "denoise", "autoencoder"]
    assert seen == [event for name in parts for event in ((f"{name} there", "cpu"), f"{name} back")]


def test_pictures_are_the_same_with_offload(model):
    before = places(model)
    assert run(model, offload="cpu").equal(run(model))
    assert places(model) == before


def test_a_missing_device_is_refused(model, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(GenerationError, match="this machine has none"):
        run(model, offload=True)
    with pytest.raises(GenerationError, match="'abacus' is not a device"):
        run(model, offload="abacus")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_half_precision_is_close_to_full(build_tiny, sampler, dtype):
    exact = run(build_tiny(), sampler=sampler)
    half = run(build_tiny(dtype=dtype), sampler=sampler)
    assert half.dtype == dtype
    error = (half.float() - exact).norm() / exact.norm()
    runs = 1.2 if sampler == "pndm" else 1  # whose first steps round four times each
    assert error < runs * (0.01 if dtype == torch.float16 else 0.08)


# --- where there is an accelerator --------------------------------------------------------------


@pytest.fixture
def accelerator(monkeypatch):
    """The accelerator, whose convolutions keep all 23 bits of float32's mantissas, not 10."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    if not torch.accelerator.is_available():
        pytest.skip("needs an accelerator")
    return torch.accelerator.current_accelerator()


@pytest.mark.gpu
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_pictures_are_alike_on_an_accelerator(build_tiny, accelerator, sampler):
    on_cpu, on_accelerator = build_tiny(), build_tiny(device=accelerator)
    on_accelerator.load_state_dict(on_cpu.state_dict())
    result = run(on_accelerator, sampler=sampler)
    assert result.device.type == accelerator.type
    torch.testing.assert_close(result.cpu(), run(on_cpu, sampler=sampler), rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_offload_computes_on_an_accelerator_and_moves_back(model, accelerator):
    before = places(model)
    result = run(model, offload=True)
    assert result.device.type == accelerator.type
    torch.testing.assert_close(result.cpu(), run(model), rtol=1e-3, atol=1e-3)
    assert places(model) == before
    image = torch.rand(1, 3, 32, 32)
    run(model, offload=True, image=image, mask=torch.ones(1, 32, 32), output="tensor")
    assert places(model) == before


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_works_on_an_accelerator(build_tiny, accelerator, dtype):
    pixels = run(build_tiny(device=accelerator, dtype=dtype), output="tensor")
    assert pixels.isfinite().all()
