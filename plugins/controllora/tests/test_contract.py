"""Control-LoRA keeps the contract of adapters, and refuses files that it cannot read."""

import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from refiners_controllora.adapter import ControlLora
from torch import Tensor

from refiners_core import Source
from refiners_core.errors import ConditionError, WeightsError
from refiners_core.models.unet import UNetConfig
from refiners_core.testing import LAWS, AdapterCase, tiny_model
from refiners_core.weights import read, write

PICTURE = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))


def untrained() -> ControlLora:
    return ControlLora(rank=2, channels=(4, 8, 8), key="control-lora")


def targets() -> list[tuple[str, str]]:
    manifest = tomllib.loads((files("refiners_controllora") / "adapter.toml").read_text())
    variants = [v for adapter in manifest["adapter"].values() for v in adapter["variant"]]
    declared = {tuple((t["slot"], t["stage"]) for t in variant["targets"]) for variant in variants}
    (same,) = declared  # every variant edits the same places
    return list(same)


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_contract(law: Callable[[AdapterCase], None]):
    law(AdapterCase(untrained, condition=PICTURE, targets=targets()))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random factors for the tiny model."""
    model, path = tiny_model(), tmp_path_factory.mktemp("lora") / "control.safetensors"
    noise = torch.Generator().manual_seed(2)
    adapter = untrained().inject(model)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.copy_(torch.randn(weight.shape, generator=noise) * 0.2)
    adapter.save(path)
    return path


def load(path: Path, model: Any) -> ControlLora:
    return ControlLora(weights=lambda _: Source({"weights": path}), key="control-lora").inject(
        model
    )


def test_a_saved_file_is_read_again_bit_for_bit(file: Path, tmp_path: Path):
    model = tiny_model()
    load(file, model).save(tmp_path / "again.safetensors")
    ours, theirs = read(tmp_path / "again.safetensors"), read(file)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert "lora_controlnet" in ours
    assert ours["input_blocks.1.0.in_layers.2.down"].shape == (2, 8, 3, 3)


def test_what_the_file_lacks_is_the_bases_own(file: Path, tmp_path: Path):
    model, tensors = tiny_model(), read(file)
    dropped = [key for key in tensors if key.startswith("middle_block.0.")]
    write({k: v for k, v in tensors.items() if k not in dropped}, tmp_path / "less.safetensors")
    adapter = load(tmp_path / "less.safetensors", model)
    side = adapter.parts.network(model.unet)
    assert side.mid.resnet_0.body.conv_1 is model.unet.mid.resnet_0.body.conv_1
    assert side.mid.resnet_1.body.conv_1 is not model.unet.mid.resnet_1.body.conv_1


def test_on_an_inpainting_base_it_reads_the_latents_alone(file: Path):
    sizes: dict[str, Any] = {"channels": (8, 16), "layers": (1, 1), "depths": (1, 1)}
    unet = UNetConfig(**sizes, heads=(2, 2), in_channels=9, text_width=8, groups=4)
    model = tiny_model(unet=unet)
    adapter = load(file, model)
    made = model.generate(
        "a", image=PICTURE, mask=torch.ones(32, 32), conditions={adapter: PICTURE}, steps=2,
        seed=1, output="latents", progress=False,
    )  # fmt: skip
    assert torch.isfinite(made).all()


Change = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
WIDE = torch.ones(2, 2048)
ATTENTION = "middle_block.1.transformer_blocks.0.attn2.to_k"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "lora_controlnet"}, "not the weights of a"),
        (lambda t: {k: v for k, v in t.items() if k != f"{ATTENTION}.down"}, "not 'down'"),
        (lambda t: t | {f"{ATTENTION}.up": torch.ones(4, 2)}, "of another shape"),
        (lambda t: t | {"time_embed.0.bias": torch.ones(3)}, "of another shape"),
        (lambda t: t | {"somewhere.else": torch.ones(3)}, "1 not expected"),
        (lambda t: {k: v for k, v in t.items() if k != "zero_convs.0.0.bias"}, "1 missing"),
        (lambda t: t | {"time_embed.0.bias": torch.full((32,), torch.nan)}, "not all finite"),
        (
            lambda t: {k: WIDE if k.endswith("attn2.to_k.down") else v for k, v in t.items()},
            "as those for sdxl do",
        ),
        (lambda t: t | {"input_hint_block.0.weight": torch.ones(4, 1, 3, 3)}, "1 channel instead"),
    ],
)  # fmt: skip
def test_other_files_are_refused_and_leave_the_model_bare(
    change: Change, message: str, file: Path, tmp_path: Path
):
    write(change(read(file)), tmp_path / "other.safetensors")
    model = tiny_model()
    with pytest.raises(WeightsError, match=message):
        load(tmp_path / "other.safetensors", model)
    assert model.adapters == ()


def test_a_value_that_is_not_a_picture_is_refused(file: Path):
    model = tiny_model()
    adapter = load(file, model)
    with pytest.raises(ConditionError, match="not an image"):
        model.generate("", conditions={adapter: "edges.png"}, steps=1, progress=False)


def test_a_worn_lora_does_not_reach_the_side_network(file: Path):
    model = tiny_model()
    adapter = load(file, model)
    context = {
        "timestep": torch.tensor(7),
        "text": torch.ones(1, 5, 8),
        adapter.features_key: torch.ones(1, 8, 8, 8),
        adapter.scale_key: torch.tensor(1.0),
    }
    x = torch.ones(1, 4, 8, 8)
    alone = adapter.parts.network(model.unet)(x, context=context)
    AdapterCase(untrained).beside().inject(model)
    again = adapter.parts.network(model.unet)(x, context=context)
    assert all(map(torch.equal, again, alone))
