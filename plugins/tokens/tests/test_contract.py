"""Both adapters keep the contract, and treat each picture of a batch as if it were alone."""

import copy
import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import pytest
import torch
from refiners_tokens.merge import TokenMerging
from refiners_tokens.tile import HyperTile
from torch import Tensor

from refiners_core import Adapter, Condition
from refiners_core.errors import ConditionError
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.unet import UNetConfig
from refiners_core.testing import LAWS, AdapterCase, tiny_model, tiny_sdxl

MANIFEST = tomllib.loads((files("refiners_tokens") / "adapter.toml").read_text())["adapter"]
PROMPTS, NEGATIVES = ["a red circle", "two cats", "a star"], ["blue", "a dog", "dark"]
OPTIONS: dict[str, Any] = {
    **{"steps": 2, "guidance": 3.0, "sampler": "ddim"},
    **{"output": "latents", "progress": False, "size": (64, 64)},
}
SIZES: dict[str, Any] = {"channels": (8,), "layers": (1,), "depths": (1,), "heads": (2,)}
BARE = tiny_model(unet=UNetConfig(**SIZES, text_width=8, groups=4))


def small() -> LatentDiffusion:
    """Returns a model with one level; a copy takes less time than to build another."""
    return copy.deepcopy(BARE)


MAKES: Mapping[str, Callable[[], Adapter]] = {
    "tome": lambda: TokenMerging(key="tome"),
    "hypertile": lambda: HyperTile(key="tile", tile_size=32, swap_size=1),
}


def latents(model: LatentDiffusion, prompt: Any = PROMPTS, **options: Any) -> Tensor:
    negative: Any = NEGATIVES if isinstance(prompt, list) else "blue"
    arguments: dict[str, Any] = {"seed": 7, "negative_prompt": negative, **OPTIONS, **options}
    return model.generate(prompt, **arguments)


def run(model: Any, conditions: Any) -> Tensor:
    return latents(model, "a red circle", conditions=conditions)


def targets(name: str) -> list[tuple[str, str]]:
    (variant,) = MANIFEST[name]["variant"]
    return [(target["slot"], target["stage"]) for target in variant["targets"]]


def test_all_adapters_of_the_manifest_are_tried():
    assert MAKES.keys() == MANIFEST.keys()
    assert MANIFEST["tome"]["conflicts"] == ["hypertile"]
    assert MANIFEST["hypertile"]["conflicts"] == ["tome"]


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("law", LAWS)
def test_each_keeps_the_contract(law: Callable[[AdapterCase], None], name: str):
    law(AdapterCase(MAKES[name], small, targets=targets(name), run=run))


@pytest.mark.parametrize("name", MAKES)
def test_a_batch_of_three_equals_three_singles(name: str):
    model = small()
    MAKES[name]().inject(model)
    batch = latents(model, seed=[1, 2, 3])
    for i in range(3):
        single = latents(model, PROMPTS[i], negative_prompt=NEGATIVES[i], seed=i + 1)
        torch.testing.assert_close(batch[i], single[0], rtol=1e-4, atol=1e-5)
    by_branch = latents(model, seed=[1, 2, 3], sequential=True)
    torch.testing.assert_close(by_branch, batch, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MAKES)
def test_it_is_absent_outside_its_span(name: str):
    model, seen = small(), dict[str, list[Tensor]]()

    def steps(label: str, **options: Any) -> None:
        seen[label] = []
        latents(model, callback=lambda *step: seen[label].append(step[1].clone()), **options)

    steps("bare")
    adapter = MAKES[name]().inject(model)
    steps("late", conditions={adapter: Condition(start=0.5)})
    equal = [torch.equal(a, b) for a, b in zip(seen["bare"], seen["late"], strict=True)]
    assert equal == [True, False]


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("build", [tiny_model, tiny_sdxl])
def test_it_acts_on_other_models_and_sizes(name: str, build: Callable[[], LatentDiffusion]):
    model = build().to(dtype=torch.bfloat16)
    bare = latents(model, size=(64, 128))
    MAKES[name]().inject(model)
    changed = latents(model, size=(64, 128))
    assert changed.dtype == torch.bfloat16
    assert changed.isfinite().all()
    assert not torch.equal(changed, bare)


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("scale", [[1.0, 0.0, 1.0], {"unet.mid": 1.0}])
def test_it_acts_in_all_pictures_and_places_or_in_none(name: str, scale: Any):
    model = small()
    adapter = MAKES[name]().inject(model)
    with pytest.raises(ConditionError, match="but none of its layers reads the scale"):
        latents(model, conditions={adapter: Condition(scale=scale)})
