"""IP-Adapter keeps the contract of adapters, and refuses invalid conditions and files."""

import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from refiners_ipadapter.adapter import IpAdapter

from refiners_core import Source
from refiners_core.errors import AdapterError, ConditionError, WeightsError
from refiners_core.models.clip import ClipImageConfig
from refiners_core.testing import LAWS, AdapterCase, tiny_model
from refiners_core.weights import write

ENCODER = ClipImageConfig(
    image_size=16, patch_size=8, width=8, inner_width=8, layers=1, heads=2, projection_width=8
)


def make() -> IpAdapter:
    torch.manual_seed(3)  # the same weights each time
    return IpAdapter(encoder=ENCODER, name="photo")


def targets() -> list[tuple[str, str]]:
    manifest = tomllib.loads((files("refiners_ipadapter") / "adapter.toml").read_text())
    variants = [v for adapter in manifest["adapter"].values() for v in adapter["variant"]]
    declared = {tuple((t["slot"], t["stage"]) for t in variant["targets"]) for variant in variants}
    (same,) = declared  # every variant edits the same places
    return list(same)


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_contract(law: Callable[[AdapterCase], None]):
    picture = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(1))
    law(AdapterCase(make, condition=picture, targets=targets()))


def test_two_adapters_have_two_pictures():
    model = tiny_model()
    first, second = make().inject(model), make().inject(model)
    picture, other = torch.rand(3, 16, 16), torch.rand(3, 16, 16)

    def latents(a, b):
        conditions = {first: a, second: b}
        return model.generate(
            "", conditions=conditions, steps=2, seed=1, output="latents", progress=False
        )

    assert not torch.equal(latents(picture, other), latents(picture, None))
    assert not torch.equal(latents(picture, None), latents(None, None))


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("image_proj.latents", "projection of another kind"),
        ("unet.conv_in.weight", "not the weights of an IP-Adapter"),
    ],
)
def test_another_file_is_refused_and_the_model_is_left_bare(tmp_path: Path, key: str, words: str):
    write({key: torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    model = tiny_model()
    adapter = IpAdapter(weights=lambda _: Source({"weights": tmp_path / "other.safetensors"}))
    with pytest.raises(WeightsError, match=words):
        adapter.inject(model)
    assert model.adapters == ()


def test_unknown_settings_of_the_encoder_are_refused(tmp_path: Path):
    write({"image_proj.proj.weight": torch.zeros(32, 8)}, tmp_path / "ip.safetensors")
    source = Source({"weights": tmp_path / "ip.safetensors"}, {"encoder": {"depth": 3}}, "tiny")
    with pytest.raises(AdapterError, match="depth"):
        IpAdapter(weights=lambda _: source).inject(tiny_model())


def test_a_value_that_is_not_a_picture_is_refused():
    model = tiny_model()
    adapter = make().inject(model)
    with pytest.raises(ConditionError, match="not an image"):
        model.generate("", conditions={adapter: 3}, steps=1, progress=False)
