"""ControlNet keeps the contract of adapters, and refuses invalid conditions and files."""

import tomllib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from refiners_controlnet.adapter import ControlNet, InpaintControlNet

from refiners_core import Source
from refiners_core.errors import ConditionError, WeightsError
from refiners_core.models.control import SideNetwork
from refiners_core.testing import LAWS, AdapterCase, tiny_model
from refiners_core.weights import write

CHANNELS = (4, 8, 8)


@cache
def trained() -> Path:
    """Returns random weights, also of the zero convolutions, so that the network has an effect."""
    adapter = ControlNet(channels=CHANNELS).inject(tiny_model())
    generator = torch.Generator().manual_seed(0)
    tensors = adapter.published().items()
    path = Path(mkdtemp()) / "controlnet.safetensors"
    write({key: torch.randn(v.shape, generator=generator) * 0.2 for key, v in tensors}, path)
    return path


def make(kind: type[SideNetwork] = ControlNet) -> SideNetwork:
    return kind(weights=lambda _: Source({"weights": trained()}), name="control")


def make_inpaint() -> SideNetwork:
    return make(InpaintControlNet)


def targets() -> list[tuple[str, str]]:
    manifest = tomllib.loads((files("refiners_controlnet") / "adapter.toml").read_text())
    variants = [v for adapter in manifest["adapter"].values() for v in adapter["variant"]]
    declared = {tuple((t["slot"], t["stage"]) for t in variant["targets"]) for variant in variants}
    (same,) = declared  # every variant edits the same places
    return list(same)


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_contract(law: Callable[[AdapterCase], None]):
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    law(AdapterCase(make, condition=picture, targets=targets()))


@pytest.mark.parametrize("law", LAWS)
def test_the_inpainting_network_keeps_the_contract(law: Callable[[AdapterCase], None]):
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    condition = {"picture": picture, "mask": torch.eye(32)[None]}
    law(AdapterCase(make_inpaint, condition=condition, targets=targets()))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.rand(3, 32, 32), "needs picture and mask; it is given Tensor"),
        ({"picture": torch.rand(3, 32, 32)}, "needs mask; it is given picture"),
        ({"picture": torch.rand(3, 32, 32), "mask": "where.png"}, "is not an image"),
        ({"picture": torch.rand(3, 3, 32, 32), "mask": torch.rand(2, 1, 32, 32)}, "and 2 masks"),
    ],
)
def test_inpainting_needs_a_picture_and_a_mask(value: object, message: str):
    model = tiny_model()
    adapter = make_inpaint().inject(model)
    with pytest.raises(ConditionError, match=message):
        model.generate("", conditions={adapter: value}, steps=1, progress=False)


def test_two_add_up():
    model, picture = tiny_model(), torch.rand(3, 32, 32)
    first, second = make().inject(model), make().inject(model)

    def latents(**values):
        conditions = {first: values.get("first"), second: values.get("second")}
        return model.generate(
            "", conditions=conditions, steps=2, seed=1, output="latents", progress=False
        )

    alone = latents(first=picture)
    assert not torch.equal(alone, latents())
    assert not torch.equal(alone, latents(first=picture, second=picture))
    second.eject()
    conditions = {first: picture}
    assert torch.equal(
        alone,
        model.generate(
            "", conditions=conditions, steps=2, seed=1, output="latents", progress=False
        ),
    )


def test_another_file_is_refused_and_the_model_is_left_bare(tmp_path: Path):
    write({"image_proj.proj.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    model = tiny_model()
    adapter = ControlNet(weights=lambda _: Source({"weights": tmp_path / "other.safetensors"}))
    with pytest.raises(WeightsError, match="not the weights of a ControlNet"):
        adapter.inject(model)
    assert model.adapters == ()


@pytest.mark.parametrize("value", ["edges.png", torch.rand(5, 32, 32), torch.rand(3, 8, 8) + 2])
def test_a_value_that_is_not_a_picture_is_refused(value: object):
    model = tiny_model()
    adapter = make().inject(model)
    with pytest.raises(ConditionError, match="not an image"):
        model.generate("", conditions={adapter: value}, steps=1, progress=False)


def test_a_network_for_latents_of_another_size_is_refused():
    model = tiny_model()
    adapter = ControlNet(channels=(4, 8), name="control").inject(model)
    with pytest.raises(ConditionError, match="2 x 2"):
        model.generate("", conditions={adapter: torch.rand(3, 32, 32)}, steps=1, progress=False)
