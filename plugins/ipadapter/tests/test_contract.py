"""IP-Adapter keeps the contract of adapters, and refuses invalid conditions and files."""

import tomllib
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from refiners_ipadapter.adapter import IpAdapter, IpAdapterDino

from refiners_core import Source
from refiners_core.errors import AdapterError, ConditionError, WeightsError
from refiners_core.models.dino import DINO_KEYS
from refiners_core.testing import LAWS, AdapterCase, tiny_model
from refiners_core.weights import published, write

from .sizes import DINO, KINDS, RESAMPLER, shown

IMAGE = ("unet.cross_attention.attend", "branch")
LORA = ("unet.linear", "branch")


def make(**options: Any) -> IpAdapter:
    return KINDS["linear"](name="photo", **options)


def test_the_manifest_declares_the_targets_of_each_kind():
    manifest = tomllib.loads((files("refiners_ipadapter") / "adapter.toml").read_text())
    for spec in manifest["adapter"].values():
        has_lora = spec["factory"].endswith((":FaceId", ":FaceIdPlus"))
        for variant in spec["variant"]:
            declared = [(target["slot"], target["stage"]) for target in variant["targets"]]
            assert declared == [IMAGE, LORA][: 1 + has_lora]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", ["linear", "plus", "faceid-plusv2"])
def test_it_keeps_the_contract(law: Callable[[AdapterCase], None], kind: str):
    targets = [IMAGE, LORA][: 1 + kind.startswith("faceid")]
    make = partial(KINDS[kind], name="photo")
    law(AdapterCase(make, condition=shown(kind), targets=targets))


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
        ("image_proj.latents", "is an IP-Adapter Plus, not an IP-Adapter with a linear"),
        ("image_proj.proj.3.weight", "is an IP-Adapter Full, not"),
        ("image_proj.norm.weight", "no projection below 'image_proj.'"),
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
    source = Source({"encoder": tmp_path / "encoder.safetensors"}, {"encoder": {"depth": 3}}, "x")
    with pytest.raises(AdapterError, match="depth"):
        IpAdapter(weights=lambda _: source).inject(tiny_model())


def test_a_value_that_is_not_a_picture_is_refused():
    model = tiny_model()
    adapter = make().inject(model)
    with pytest.raises(ConditionError, match="not an image"):
        model.generate("", conditions={adapter: 3}, steps=1, progress=False)


def test_an_adapter_without_weights_has_a_trained_encoder_and_can_be_trained(tmp_path: Path):
    trained = KINDS["dinov2"](name="photo").inject(tiny_model())
    write(published(trained.encoder, DINO_KEYS), tmp_path / "encoder.safetensors")
    source = Source({"encoder": tmp_path / "encoder.safetensors"}, {"encoder": asdict(DINO)}, "x")
    adapter = IpAdapterDino(weights=lambda _: source, resampler=RESAMPLER).inject(tiny_model())
    expected = trained.encoder.state_dict()
    assert all(torch.equal(expected[key], x) for key, x in adapter.encoder.state_dict().items())
    assert all(weight.requires_grad for weight in adapter.parts.parameters())
    assert not any(weight.requires_grad for weight in adapter.encoder.parameters())
