"""Both adapters keep the contract, and treat each picture of a batch as if it were alone."""

import copy
import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import pytest
import torch
from refiners_inversion.adapter import DdimInversion
from refiners_inversion.renoise import ReNoise
from torch import Tensor

from refiners_core import Adapter, Chain, Condition, Lambda
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.testing import LAWS, AdapterCase, tiny_model, tiny_sdxl

MANIFEST = tomllib.loads((files("refiners_inversion") / "adapter.toml").read_text())["adapter"]
PICTURES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(4))
PROMPTS = ["a red circle", "two cats", "a star"]
OPTIONS: dict[str, Any] = {
    **{"steps": 2, "guidance": 3.0, "sampler": "ddim"},
    **{"output": "latents", "progress": False},
}
MAKES: Mapping[str, Callable[[], Adapter]] = {
    "ddim-inversion": lambda: DdimInversion(key="inversion", prompt="a cat"),
    "renoise": lambda: ReNoise(key="renoise"),
}
BARE = tiny_model()


def small() -> LatentDiffusion:
    return copy.deepcopy(BARE)


class Louder(Adapter):
    """Makes the result of guidance larger."""

    def edits(self, model: Any) -> Any:
        louder = Lambda(lambda x: 1.1 * x)
        guidance = model.slot("denoise.guidance")
        return guidance.wrap(lambda inner, seat: Chain(inner, louder), stage="output")


def latents(model: LatentDiffusion, prompt: Any = "a star", **options: Any) -> Tensor:
    return model.generate(prompt, **{"seed": 7, **OPTIONS, **options})


def run(model: Any, conditions: Any) -> Tensor:
    return latents(model, conditions=conditions, steps=1)


def targets(name: str) -> list[tuple[str, str]]:
    (variant,) = MANIFEST[name]["variant"]
    return [(target["slot"], target["stage"]) for target in variant["targets"]]


def test_all_adapters_of_the_manifest_are_tried():
    assert MAKES.keys() == MANIFEST.keys()
    assert {name: spec["conflicts"] for name, spec in MANIFEST.items()} == {
        "ddim-inversion": ["renoise"],
        "renoise": ["ddim-inversion"],
    }


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("law", LAWS)
def test_each_keeps_the_contract(law: Callable[[AdapterCase], None], name: str):
    facts: Any = {"run": run, "beside": Louder, "condition": PICTURES[:1]}
    law(AdapterCase(MAKES[name], small, targets=targets(name), **facts))


@pytest.mark.parametrize("name", MAKES)
def test_a_batch_of_three_equals_three_singles(name: str):
    model, scales = small(), [1.0, 0.0, 0.5]
    adapter = MAKES[name]().inject(model)
    value = {"picture": PICTURES, "prompt": PROMPTS}
    options: Any = {
        "seed": [1, 2, 3],
        "steps": 1,
        "conditions": {adapter: Condition(value, scale=scales)},
    }
    batch = latents(model, PROMPTS, **options)
    torch.testing.assert_close(latents(model, PROMPTS, sequential=True, **options), batch)
    for i in range(3):
        single = Condition({"picture": PICTURES[i], "prompt": PROMPTS[i]}, scale=scales[i])
        alone = latents(model, PROMPTS[i], seed=i + 1, steps=1, conditions={adapter: single})
        torch.testing.assert_close(batch[i], alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MAKES)
def test_it_acts_on_sdxl_in_its_dtype(name: str):
    model = tiny_sdxl().to(dtype=torch.bfloat16)
    bare = latents(model)
    adapter = MAKES[name]().inject(model)
    changed = latents(model, conditions={adapter: PICTURES[0]})
    assert changed.dtype == torch.bfloat16
    assert changed.isfinite().all()
    assert not torch.equal(changed, bare)
