"""T2I-Adapter keeps the contract of adapters, and refuses invalid conditions and files."""

import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from refiners_t2iadapter.adapter import T2iAdapter

from refiners_core import Condition, Source
from refiners_core.errors import AdapterError, ConditionError, WeightsError
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.unet import UNetConfig
from refiners_core.testing import LAWS, AdapterCase, tiny_model
from refiners_core.weights import write

DOWN = [("unet.down.output", "branch")]
ALL = [*DOWN, ("unet.down.downsample", "branch"), ("unet.mid.output", "branch")]


def make() -> T2iAdapter:
    torch.manual_seed(3)  # the same weights each time
    return T2iAdapter(name="t2i")


def make_light() -> T2iAdapter:
    torch.manual_seed(3)
    return T2iAdapter(name="t2i", is_light=True, picture_channels=1)


SIZES = {"layers": (1, 1), "heads": (2, 2), "text_width": 8, "groups": 4}


def xl_model() -> LatentDiffusion:
    """Returns a model whose first level has no attention, as in SDXL."""
    return tiny_model(unet=UNetConfig(channels=(8, 16), depths=(0, 1), **SIZES))


def narrow_model() -> LatentDiffusion:
    return tiny_model(unet=UNetConfig(channels=(4, 8), depths=(1, 1), **SIZES))


def test_the_manifest_declares_the_targets_of_each_base():
    manifest = tomllib.loads((files("refiners_t2iadapter") / "adapter.toml").read_text())
    for name, spec in manifest["adapter"].items():
        if name == "t2i-style":
            continue  # another class, with a contract of its own
        for variant in spec["variant"]:
            declared = [(target["slot"], target["stage"]) for target in variant["targets"]]
            assert declared == (ALL if variant["base"] == "sdxl" else DOWN)


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_contract(law: Callable[[AdapterCase], None]):
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    law(AdapterCase(make, condition=picture, targets=DOWN))


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_contract_on_sdxl(law: Callable[[AdapterCase], None]):
    picture = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(1))
    law(AdapterCase(make_light, xl_model, condition=picture, targets=ALL))


def latents(model: LatentDiffusion, conditions: Any, **options: Any) -> torch.Tensor:
    defaults = {"steps": 2, "seed": 1, "output": "latents", "progress": False}
    return model.generate("", conditions=conditions, **defaults | options)


@pytest.mark.parametrize("sequential", [False, True])
def test_several_add_up_in_any_order_and_features_are_made_once(sequential: bool):
    model, picture = tiny_model(), torch.rand(3, 32, 32)
    first, second = make().inject(model), make().inject(model)
    made: list[object] = []
    first.parts.register_forward_hook(lambda *_: made.append(_))
    both = latents(model, {first: picture, second: picture}, sequential=sequential)
    assert len(made) == 1
    double = latents(model, {first: Condition(picture, scale=2.0), second: None})
    assert torch.allclose(both, double, atol=1e-5)
    assert not torch.allclose(both, latents(model, {first: picture, second: None}), atol=1e-3)


def test_there_may_be_one_picture_per_generated_picture():
    model = tiny_model()
    adapter = make().inject(model)
    pictures = [torch.rand(3, 20, 24), Image.new("RGB", (8, 8), "red")]
    both = latents(model, {adapter: pictures}, count=2)
    for i, picture in enumerate(pictures):
        alone = latents(model, {adapter: picture}, seed=1 + i)
        assert torch.allclose(both[i], alone[0], atol=1e-5)


def test_a_grey_picture_may_have_three_channels():
    model = tiny_model()
    adapter = make_light().inject(model)
    grey = Image.linear_gradient("L").resize((32, 32))
    results = [latents(model, {adapter: value}) for value in (grey, grey.convert("RGB"))]
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("made", "value", "size", "words"),
    [
        (make, "edges.png", None, "not an image"),
        (make, torch.rand(4, 32, 32), None, "pictures of 3 channels; this one has 4"),
        (make_light, [torch.rand(2, 32, 32)], None, "pictures of 1 channel; this one has 2"),
        (make, torch.rand(3, 3, 32, 32), None, "is given 3 pictures to generate 1"),
        (make_light, torch.rand(3, 32, 32), None, "reads grey pictures"),
        (make_light, Image.new("RGB", (8, 8), "red"), None, "reads grey pictures"),
        (make, Condition(torch.rand(3, 8, 8), mask=torch.ones(1, 1, 8, 8)), None, "takes no mask"),
        (make_light, torch.rand(1, 32, 32), (32, 36), r"8 x 8 pixels; 32 x 36 .*size=\(32, 32\)"),
    ],
)
def test_an_invalid_condition_is_refused_before_any_network_runs(
    made: Any, value: Any, size: Any, words: str
):
    model = xl_model() if size else tiny_model()
    adapter = made().inject(model)
    for network in (model.text_encoder, adapter.parts):
        network.register_forward_pre_hook(lambda *_: pytest.fail("a network runs"))
    with pytest.raises(ConditionError, match=words):
        latents(model, {adapter: value}, size=size)


def published(tmp_path: Path, model: LatentDiffusion, **options: Any) -> Path:
    adapter = T2iAdapter(**options).inject(model)
    adapter.save(tmp_path / "t2i.safetensors")
    return tmp_path / "t2i.safetensors"


def loaded(path: Path, **settings: Any) -> T2iAdapter:
    return T2iAdapter(weights=lambda _: Source({"weights": path}, settings, "tiny"), name="t2i")


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        (xl_model, tiny_model, "8 x 8 pixels, as those for Stable Diffusion XL do; .* 4 x 4"),
        (tiny_model, xl_model, "4 x 4 pixels, as those for Stable Diffusion 1.5 do; .* 8 x 8"),
        (
            narrow_model,
            tiny_model,
            "maps of 4, 8 channels, this model needs 8, 16",
        ),
    ],
)
def test_a_file_for_another_model_is_refused_and_the_model_is_left_bare(
    theirs: Any, ours: Any, words: str, tmp_path: Path
):
    path, model = published(tmp_path, theirs()), ours()
    with pytest.raises(WeightsError, match=words):
        loaded(path).inject(model)
    assert model.adapters == ()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            ("controlnet_cond_embedding.conv_in.weight",),
            "this file holds 'controlnet_cond_embedding.conv_in",
        ),
        (("style_embedding", "ln_pre.weight"), "a T2I-Adapter for style"),
        (("adapter.body.0.resnets.0.block1.weight",), "lacks its first convolution"),
        (("adapter.body.0.block1.weight", "adapter.conv_in.weight"), "reads 2 numbers per square"),
    ],
)
def test_another_file_is_refused_and_the_model_is_left_bare(
    keys: tuple[str, ...], words: str, tmp_path: Path
):
    write({key: torch.zeros(2, 2, 1, 1) for key in keys}, tmp_path / "other.safetensors")
    model = tiny_model()
    with pytest.raises(WeightsError, match=words):
        loaded(tmp_path / "other.safetensors").inject(model)
    assert model.adapters == ()


@pytest.mark.parametrize("prefix", ["", "adapter.", "state_dict.", "state_dict.adapter."])
def test_a_wrapped_file_is_read(prefix: str, tmp_path: Path):
    model = tiny_model()
    adapter = T2iAdapter().inject(model)
    tensors = {key.removeprefix("adapter."): value for key, value in adapter.published().items()}
    adapter.eject()
    write({prefix + key: value for key, value in tensors.items()}, tmp_path / "wrapped.safetensors")
    again = loaded(tmp_path / "wrapped.safetensors").inject(model).published()
    assert {key.removeprefix("adapter.") for key in again} == tensors.keys()
    assert all(torch.equal(again[f"adapter.{key}"], value) for key, value in tensors.items())


def test_the_order_of_channels_is_that_of_the_variant(tmp_path: Path):
    model = tiny_model()
    path = published(tmp_path, tiny_model())
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    with loaded(path).on(model) as adapter:
        usual = latents(model, {adapter: red})
    with loaded(path, **{"channel-order": "bgr"}).on(model) as adapter:
        assert torch.equal(latents(model, {adapter: blue}), usual)
        assert not torch.equal(latents(model, {adapter: red}), usual)
    with pytest.raises(AdapterError, match="has the channel order 'gbr'"):
        loaded(path, **{"channel-order": "gbr"}).inject(model)
