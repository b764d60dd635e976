"""FreeU and FreSca keep the contract, act where the papers say, and on each picture alone."""

import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from refiners_freeu.adapter import FreeU
from refiners_freeu.fresca import FreSca
from torch import Tensor

from refiners_core import Adapter, Chain, Condition, Lambda
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.unet import UNetConfig
from refiners_core.testing import LAWS, AdapterCase, tiny_model, tiny_sdxl

MANIFEST = tomllib.loads((files("refiners_freeu") / "adapter.toml").read_text())["adapter"]
MAKES: Mapping[str, Callable[[], Adapter]] = {
    "freeu": lambda: FreeU(key="freeu"),
    "fresca": lambda: FreSca(key="fresca", cutoff=2),
}


class Louder(Adapter):
    """Makes features of skips larger."""

    def edits(self, model: Any) -> Any:
        louder = Lambda(lambda x: 1.1 * x)
        skips = model.slot("unet.skip.read")
        return skips.wrap(lambda inner, seat: Chain(inner, louder), stage="output")


def targets(name: str) -> list[tuple[str, str]]:
    (variant,) = MANIFEST[name]["variant"]
    return [(target["slot"], target["stage"]) for target in variant["targets"]]


def latents(
    model: LatentDiffusion, prompt: Any = ("a cat", "two dogs", "x"), **options: Any
) -> Tensor:
    defaults: dict[str, Any] = {"steps": 2, "guidance": 3.0, "progress": False}
    defaults |= {"output": "latents", **options}
    return model.generate(prompt if isinstance(prompt, str) else [*prompt], **defaults)


@pytest.mark.parametrize("name", MANIFEST)
@pytest.mark.parametrize("law", LAWS)
def test_each_keeps_the_contract(law: Callable[[AdapterCase], None], name: str):
    law(AdapterCase(MAKES[name], targets=targets(name), beside=Louder))


@pytest.mark.parametrize("make", [*MAKES.values(), lambda: FreeU(version=1, key="first")])
def test_a_batch_of_three_equals_three_singles(make: Callable[[], Adapter]):
    model = tiny_model()
    adapter = make().inject(model)
    scales = [1.0, 0.0, 0.5]
    batch = latents(model, seed=[1, 2, 3], conditions={adapter: Condition(scale=scales)})
    for i, prompt in enumerate(("a cat", "two dogs", "x")):
        scaled = {adapter: Condition(scale=scales[i])}
        single = latents(model, prompt, seed=i + 1, conditions=scaled)[0]
        torch.testing.assert_close(batch[i], single, rtol=1e-4, atol=1e-5)


def factors(model: LatentDiffusion, adapter: FreeU) -> list[tuple[int, float, float]]:
    """Returns, for each skip on the way up, the width of the backbone and both factors."""
    seen: list[tuple[int, float, float]] = []
    widths: list[int] = []
    pairs = zip(model.slot("unet.skip.backbone"), model.slot("unet.skip.read"), strict=True)
    edits: Any = adapter.edits(model)
    worn = {seat.path: edit for edit in edits for seat in edit.seats}
    hooks = [
        seat.layer.register_forward_hook(lambda _, x, y: widths.append(y.shape[1]))
        for seat in model.slot("unet.skip.backbone")
    ]
    latents(model, "a cat", steps=1)
    for hook in hooks:
        hook.remove()
    for (backbone, read), width in zip(pairs, widths, strict=True):
        both = [
            worn[seat.path].make(seat.layer, seat)[-1].factor if seat.path in worn else 1.0
            for seat in (backbone, read)
        ]
        seen.append((width, both[0], both[1]))
    return seen


WIDE = UNetConfig(
    channels=(8, 16, 32, 32),
    layers=(2, 2, 2, 2),
    depths=(0, 0, 0, 0),
    heads=(1, 1, 1, 1),
    text_width=8,
    groups=4,
)


def test_the_stages_of_the_authors_go_by_the_width_of_the_backbone():
    model = tiny_model(unet=WIDE)
    by_width = {32: (1.5, 0.9), 16: (1.6, 0.2), 8: (1.0, 1.0)}
    seen = factors(model, FreeU())
    assert [width for width, *_ in seen] == [32] * 7 + [16] * 3 + [8] * 2
    assert seen == [(width, *by_width[width]) for width, *_ in seen]


def test_the_stages_of_diffusers_are_the_first_levels():
    seen = factors(tiny_model(unet=WIDE), FreeU(stages="diffusers", b2=1.2))
    assert [pair for _, *pair in seen] == [[1.5, 0.9]] * 3 + [[1.2, 0.2]] * 3 + [[1.0, 1.0]] * 6


def test_factors_are_those_of_the_model():
    seen = factors(tiny_sdxl(), FreeU())
    assert set(seen) == {(16, 1.3, 0.9), (8, 1.4, 0.2)}


@pytest.mark.parametrize("make", [FreeU(b1=1, b2=1, s1=1, s2=1, key="a"), FreSca(high=1, cutoff=2)])
def test_factors_of_one_change_nothing(make: Adapter):
    model = tiny_model()
    bare = latents(model, "a cat", seed=1)
    make.inject(model)
    assert torch.allclose(latents(model, "a cat", seed=1), bare, atol=1e-5)


def test_flat_features_stay_finite():
    model = tiny_model()
    with torch.no_grad():
        for weight in model.unet.conv_in.parameters():
            weight.zero_()
    FreeU().inject(model)
    assert latents(model).isfinite().all()


def test_negative_factors_are_refused():
    with pytest.raises(AdapterError, match="b1 is a number of at least 0, not -1"):
        FreeU(b1=-1)


def test_fresca_refuses_latents_without_high_frequencies():
    model = tiny_model()
    FreSca(key="fresca").inject(model)
    with pytest.raises(ConditionError, match=r"latents of 8 x 8 have no frequency.*cutoff=2"):
        latents(model)
    model.eject_all()
    FreSca(key="fresca", cutoff=2).inject(model)
    with pytest.raises(ConditionError, match="which this generation does not have"):
        latents(model, guidance=1.0)


def test_without_weights_there_is_nothing_to_save(tmp_path: Path):
    adapter = FreeU(name="freeu")
    with pytest.raises(AdapterError, match=r'no weights.*load_adapter\("freeu", model\)'):
        adapter.save(tmp_path / "freeu.safetensors")
    assert not [*tmp_path.iterdir()]
