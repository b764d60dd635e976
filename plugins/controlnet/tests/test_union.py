"""Unions of control types: the contract, the rules of scales, and refused values."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from refiners_controlnet.adapter import ControlNet
from refiners_controlnet.union import UnionControlNet

from refiners_core import Condition, Source
from refiners_core.errors import ConditionError, WeightsError
from refiners_core.testing import LAWS, AdapterCase, tiny_model, tiny_sdxl

A = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
B = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(2))
SLOTS = ("unet.input", "unet.skip.write", "unet.mid.output")


def untrained() -> UnionControlNet:
    return UnionControlNet(channels=(4, 8, 8), key="union")


@pytest.fixture(scope="module")
def worn() -> tuple[Any, UnionControlNet]:
    model = tiny_sdxl()
    union, noise = untrained().inject(model), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in union.parameters():
            weight.copy_(torch.randn(weight.shape, generator=noise) * 0.2)
    return model, union


def generated(worn: tuple[Any, UnionControlNet], value: Any, **options: Any) -> torch.Tensor:
    model, union = worn
    options = {"steps": 2, "seed": 1, "guidance": 3.0, **options}
    return model.generate(
        "a cat", conditions={union: value}, output="latents", progress=False, **options
    )


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_contract(law: Callable[[AdapterCase], None]):
    condition = {"canny": A, "depth": Condition(B, scale=0.5)}
    targets = [(slot, "branch") for slot in SLOTS]
    law(AdapterCase(untrained, model=tiny_sdxl, condition=condition, targets=targets))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_order_of_pictures_does_not_matter(worn: Any, guidance: float):
    forwards = generated(worn, {"canny": A, "depth": B}, guidance=guidance)
    assert torch.equal(forwards, generated(worn, {"depth": B, "canny": A}, guidance=guidance))
    assert not torch.equal(forwards, generated(worn, {"canny": B, "depth": A}, guidance=guidance))


def test_a_scale_belongs_to_the_picture_or_to_all(worn: Any):
    inner = generated(worn, {"canny": Condition(A, scale=0.5)})
    assert torch.equal(inner, generated(worn, Condition({"canny": A}, scale=0.5)))
    both = generated(worn, Condition({"canny": A, "depth": B}, scale=0.5))
    each = {"canny": Condition(A, scale=0.5), "depth": Condition(B, scale=0.5)}
    assert torch.equal(both, generated(worn, each))


def test_a_picture_of_scale_zero_is_absent(worn: Any):
    alone = generated(worn, {"canny": A})
    assert torch.equal(alone, generated(worn, {"canny": A, "depth": Condition(B, scale=0.0)}))
    assert torch.equal(alone, generated(worn, {"canny": A, "depth": None}))
    assert torch.equal(generated(worn, {"canny": None}), generated(worn, None))


@pytest.mark.parametrize("pictures", [{"canny": A}, {"canny": A, "depth": B}])
def test_a_scale_by_place_weights_the_outputs(worn: Any, pictures: dict[str, Any]):
    _, union = worn
    by_place = generated(worn, Condition(pictures, scale={"unet.mid": 0.5}))
    union.layers = [0.0] * 6 + [0.5]
    weighted = generated(worn, pictures)
    union.layers = None
    assert torch.allclose(by_place, weighted, atol=1e-5)
    assert not torch.allclose(by_place, generated(worn, pictures), atol=1e-3)


def test_the_scale_of_one_picture_is_applied_where_outputs_are_added(worn: Any):
    _, union = worn
    values = {
        union.types_key: torch.tensor([[0.0, 0, 0, 1, 0, 0]]),
        f"{union.features_key}.canny": torch.ones(1, 8, 8, 8),
        "timestep": torch.tensor(7),
        "text": torch.ones(1, 5, 16),
        "pooled": torch.ones(1, 8),
        "time_ids": torch.ones(1, 6),
    }
    x = torch.ones(1, 4, 8, 8)
    full, half = (
        union.parts.network(x, context=values | {union.scale_key: torch.tensor(scale)})
        for scale in (1.0, 0.5)
    )
    assert all(map(torch.equal, full, half))
    values[f"{union.features_key}.depth"] = -torch.ones(1, 8, 8, 8)
    full, half = (
        union.parts.network(x, context=values | {union.scale_key: torch.tensor(scale)})
        for scale in (1.0, 0.5)
    )
    assert not any(map(torch.equal, full, half))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"tile": A}, r"no control type 'tile'; its types are .*controlnet-union-promax"),
        ({"edges": A}, "no control type 'edges'"),
        (A, "takes pictures by control type, not a Tensor"),
        ({}, "not nothing"),
        ({"canny": Condition(A, end=0.5)}, "no span and no mask"),
        ({"canny": Condition(A, scale={"unet.mid": 0.5})}, "the scale of canny is one number"),
        ({"canny": Condition(A, scale=[0.5, 1.0]), "depth": B}, "the scale of canny is one number"),
        ({"canny": Condition(A, scale=lambda progress: progress)}, "the scale of canny is one"),
        ({"canny": Condition([A, B])}, "given 2 values as canny for 1 picture"),
        ({"canny": "edges.png"}, "not an image"),
    ],
)
def test_other_values_are_refused(worn: Any, value: Any, message: str):
    with pytest.raises(ConditionError, match=message):
        generated(worn, value)


def test_promax_reads_black_under_the_mask_of_inpainting():
    model = tiny_model()
    union = UnionControlNet(types=8, channels=(4, 8, 8)).inject(model)
    seen: list[torch.Tensor] = []
    union.parts.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    mask = torch.zeros(1, 32, 32)
    mask[:, :16] = 1
    value = {"inpaint": {"picture": A, "mask": mask}}
    model.generate("a", conditions={union: value}, steps=1, progress=False)
    assert torch.equal(seen[0], (A * (1 - mask))[None])


def test_inpainting_in_promax_needs_a_picture_and_a_mask():
    model = tiny_model()
    union = UnionControlNet(types=8, channels=(4, 8, 8), key="union").inject(model)
    value = {"inpaint": {"picture": A}}
    with pytest.raises(ConditionError, match="fills in a picture under a mask; it is given pic"):
        model.generate("a", conditions={union: value}, steps=1, progress=False)


def test_a_picture_may_be_preprocessed_with_a_scale_of_its_own(worn: Any):
    made = {"canny": Condition(1 - A, scale=0.5)}
    photo = {"canny": Condition(A, scale=0.5, preprocess=lambda picture, size: 1 - picture)}
    assert torch.equal(generated(worn, photo), generated(worn, made))


def test_each_kind_of_file_is_read_by_its_adapter(worn: Any, tmp_path: Any):
    union, plain = tmp_path / "union.safetensors", tmp_path / "plain.safetensors"
    worn[1].save(union)
    model = tiny_sdxl()
    ControlNet(channels=(4, 8, 8)).inject(model).save(plain)
    with pytest.raises(WeightsError, match="this file is a union"):
        ControlNet(weights=lambda _: Source({"weights": union})).inject(model)
    with pytest.raises(WeightsError, match="is a ControlNet for one control type"):
        UnionControlNet(weights=lambda _: Source({"weights": plain})).inject(model)
    again = UnionControlNet(weights=lambda _: Source({"weights": union}), key="union")
    model.eject_all()
    again.inject(model)
    assert torch.equal(generated((model, again), {"canny": A}), generated(worn, {"canny": A}))
