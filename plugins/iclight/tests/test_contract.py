"""IC-Light keeps the contract of adapters, and refuses other files, bases and values."""

import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from refiners_iclight.adapter import BackgroundLight, ForegroundLight, Relight
from torch import Tensor, nn

from refiners_core import Adapter, Source
from refiners_core.errors import AdapterError, ConditionError, WeightsError
from refiners_core.models.diffusion import GenerationRequest
from refiners_core.models.unet import UNetConfig
from refiners_core.testing import LAWS, AdapterCase, tiny_model
from refiners_core.weights import MisfitError, read, write

PICTURE = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
BOTH = {"foreground": PICTURE, "background": PICTURE.flip(-1)}
KINDS: dict[type[Relight], Any] = {ForegroundLight: PICTURE, BackgroundLight: BOTH}


def bits(latents: Tensor) -> bytes:
    return latents.numpy().tobytes()


def targets() -> list[tuple[str, str]]:
    manifest = tomllib.loads((files("refiners_iclight") / "adapter.toml").read_text())
    variants = [v for adapter in manifest["adapter"].values() for v in adapter["variant"]]
    (same,) = {tuple((t["slot"], t["stage"]) for t in variant["targets"]) for variant in variants}
    return list(same)


def case(kind: type[Relight]) -> AdapterCase:
    return AdapterCase(lambda: kind(key="light"), condition=KINDS[kind], targets=targets())


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_contract(law: Callable[[AdapterCase], None]):
    law(case(ForegroundLight))


def test_both_kinds_act_and_are_absent_when_left_out():
    for law in LAWS:
        if law.__name__ in ("acts", "is_absent_when_left_out"):  # all else is the same code
            law(case(BackgroundLight))


def relit(kind: type[Relight] = ForegroundLight, **options: Any) -> tuple[Any, Relight]:
    """Returns a model that wears an adapter with random offsets."""
    model = tiny_model(**options)
    adapter = kind(key="light").inject(model)
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.copy_(torch.randn(weight.shape, generator=noise) * 0.05)
    return model, adapter


def generate(model: Any, conditions: dict[Adapter, Any], **options: Any) -> Tensor:
    fixed: dict[str, Any] = {"steps": 2, "seed": 7, "output": "latents", "progress": False}
    return model.generate("a red circle", conditions=conditions, **fixed | options)


def test_every_tensor_of_the_unet_has_an_offset():
    model, adapter = relit()
    kinds = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm)
    with adapter.taken_off():
        layers = {f"unet.{path}" for path, layer in model.unet.walk() if isinstance(layer, kinds)}
        edited = [seat.path for edit in adapter.edits(model) for seat in edit.seats]
    assert sorted(edited) == sorted(layers)
    assert len(adapter.published()) == len([*model.unet.parameters()]) - len(
        [*adapter.parameters()]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_merged_it_computes_the_same_and_comes_off_exactly(kind: type[Relight]):
    model, adapter = relit(kind)
    worn = generate(model, {adapter: KINDS[kind]})
    adapter.merge()
    torch.testing.assert_close(generate(model, {adapter: KINDS[kind]}), worn, rtol=1e-4, atol=1e-4)
    adapter.unmerge()
    assert bits(generate(model, {adapter: KINDS[kind]})) == bits(worn)
    adapter.eject()
    assert bits(generate(model, {})) == bits(generate(tiny_model(), {}))


def test_offsets_of_zero_leave_the_picture_as_it_is():
    model = tiny_model()
    bare = generate(model, {})
    adapter = ForegroundLight(key="light").inject(model)
    torch.testing.assert_close(generate(model, {adapter: PICTURE}), bare, rtol=0, atol=0)


def test_a_lora_beside_it_acts_as_well_in_either_order():
    case = AdapterCase(lambda: ForegroundLight(key="light"))
    outputs: list[Any] = []
    for is_first in (True, False):
        model, adapter = relit()
        with adapter.taken_off():
            if is_first:
                case.beside().inject(model)
        if not is_first:
            case.beside().inject(model)
        outputs.append(bits(generate(model, {adapter: PICTURE})))
    assert outputs[0] == outputs[1] != bits(generate(*_alone()))


def _alone() -> tuple[Any, dict[Adapter, Any]]:
    model, adapter = relit()
    return model, {adapter: PICTURE}


def test_transparent_parts_are_grey_whose_level_is_zero():
    model, adapter = relit()
    clear = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    grey = Image.new("RGB", (32, 32), (127, 127, 127))
    outputs = [bits(generate(model, {adapter: picture})) for picture in (clear, grey)]
    assert outputs[0] == outputs[1]
    request = GenerationRequest(
        model=model, count=1, branches=("cond",), height=32, width=32, latent_height=8,
        latent_width=8, dtype=torch.float32, device=torch.device("cpu"),
    )  # fmt: skip
    (pixels,) = adapter._pixels(grey, request)
    assert float((2 * pixels - 1).abs().max()) < 1e-6


def test_each_picture_may_have_a_foreground():
    model, adapter = relit()
    pictures = [PICTURE, 1 - PICTURE]
    both = generate(model, {adapter: pictures}, count=2)
    second = generate(model, {adapter: pictures[1]}, seed=8)
    torch.testing.assert_close(both[1:], second, rtol=1e-4, atol=1e-4)


def test_an_inpainting_model_is_refused():
    sizes: dict[str, Any] = {"channels": (8, 16), "layers": (1, 1), "depths": (1, 1)}
    unet = UNetConfig(**sizes, heads=(2, 2), in_channels=9, text_width=8, groups=4)
    model = tiny_model(unet=unet)
    with pytest.raises(AdapterError, match="it is an inpainting model"):
        ForegroundLight(key="light").inject(model)
    assert model.adapters == ()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("light") / "iclight.safetensors"
    relit()[1].save(path)
    return path


def load(path: Path, kind: type[Relight] = ForegroundLight) -> Relight:
    return kind(weights=lambda _: Source({"weights": path}), key="light").inject(tiny_model())


def test_a_saved_file_is_read_again_bit_for_bit(file: Path, tmp_path: Path):
    load(file).save(tmp_path / "again.safetensors")
    again, before = read(tmp_path / "again.safetensors"), read(file)
    assert again.keys() == before.keys()
    assert all(torch.equal(again[key], before[key]) for key in before)
    assert before["conv_in.weight"].shape == (8, 8, 3, 3)


def test_files_for_another_number_of_pictures_are_refused(file: Path, tmp_path: Path):
    with pytest.raises(WeightsError, match="channels: latents and foreground"):
        load(file, BackgroundLight)
    path = tmp_path / "fbc.safetensors"
    relit(BackgroundLight)[1].save(path)
    with pytest.raises(WeightsError, match="channels: latents, foreground and background"):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"a": torch.ones(1)}, "these are not the weights of IC-Light"),
        (lambda t: t | {"conv_norm_out.weight": torch.ones(8)}, "whole weights of a UNet"),
        (lambda t: {k: v for k, v in t.items() if "norm1" not in k}, "missing"),
    ],
)
def test_other_files_are_refused(change: Any, message: str, file: Path, tmp_path: Path):
    write(change(read(file)), tmp_path / "other.safetensors")
    with pytest.raises((WeightsError, MisfitError), match=message):
        load(tmp_path / "other.safetensors")


def test_values_that_are_not_pictures_are_refused():
    model, adapter = relit()
    for value, message in (("a.png", "not an image"), ([PICTURE] * 3, "3 pictures")):
        with pytest.raises(ConditionError, match=message):
            generate(model, {adapter: value}, count=2)
