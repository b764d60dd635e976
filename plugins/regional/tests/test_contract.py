"""Every adapter keeps the contract, and treats each picture of a batch as if it were alone."""

import copy
import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import pytest
import torch
from refiners_regional.prompt import RegionalPrompts
from refiners_regional.shrink import DeepShrink
from refiners_regional.tiled import MixtureOfDiffusers, MultiDiffusion
from torch import Tensor

from refiners_core import Adapter, Chain, Condition, Lambda
from refiners_core.errors import ConditionError
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.testing import LAWS, AdapterCase, tiny_model, tiny_sdxl

MANIFEST = tomllib.loads((files("refiners_regional") / "adapter.toml").read_text())["adapter"]
PROMPTS, NEGATIVES = ["a red circle", "two cats", "a star"], ["blue", "a dog", "dark"]
OPTIONS: dict[str, Any] = {
    **{"steps": 2, "guidance": 3.0, "sampler": "ddim"},
    **{"output": "latents", "progress": False, "size": (40, 32)},
}
MASK = torch.rand(1, 1, 20, 30, generator=torch.Generator().manual_seed(5))
REGIONS = [
    {"prompt": "a cat", "box": (0, 0, 0.6, 1), "negative": "ink"},
    {"prompt": "the sea, the sky, a boat", "mask": MASK, "weight": 0.7},
]
BARE = tiny_model()
MAKES: Mapping[str, Callable[..., Adapter]] = {
    "regional-prompts": lambda **o: RegionalPrompts(key="regions", **o),
    "multidiffusion": lambda **o: MultiDiffusion(key="multi", window=24, stride=16, **o),
    "mixture-of-diffusers": lambda **o: MixtureOfDiffusers(key="mixture", **o),
    "kohya-hires": lambda **o: DeepShrink(key="shrink", **o),
}
MODES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    **{name: (name, {}) for name in MAKES},
    "regional, softened": ("regional-prompts", {"base": 0.2, "feather": 0.05}),
    "regional attention": ("regional-prompts", {"mode": "attention"}),
    "four windows": ("multidiffusion", {"batch": 4, "circular": True}),
}


def made(mode: str) -> Adapter:
    name, options = MODES[mode]
    return MAKES[name](**options)


def value_of(mode: str) -> Any:
    return REGIONS if mode.startswith("regional") else None


def small() -> LatentDiffusion:
    return copy.deepcopy(BARE)


class Louder(Adapter):
    """Makes the result of guidance larger."""

    def edits(self, model: Any) -> Any:
        louder = Lambda(lambda x: 1.1 * x)
        guidance = model.slot("denoise.guidance")
        return guidance.wrap(lambda inner, seat: Chain(inner, louder), stage="output")


def latents(model: LatentDiffusion, prompt: Any = PROMPTS, **options: Any) -> Tensor:
    negative: Any = NEGATIVES if isinstance(prompt, list) else "blue"
    return model.generate(prompt, **{"seed": 7, "negative_prompt": negative, **OPTIONS, **options})


def run(model: Any, conditions: Any) -> Tensor:
    options: Any = {"steps": 1, "guidance": 1.0, "negative_prompt": ""}
    return latents(model, "a red circle", conditions=conditions, **options)


def targets(mode: str) -> list[tuple[str, str]] | None:
    if mode not in MANIFEST:
        return None
    (variant,) = MANIFEST[mode]["variant"]
    return [(target["slot"], target["stage"]) for target in variant["targets"]]


def test_all_adapters_of_the_manifest_are_tried():
    assert MAKES.keys() == MANIFEST.keys()


@pytest.mark.parametrize("mode", MAKES)
@pytest.mark.parametrize("law", LAWS)
def test_each_keeps_the_contract(law: Callable[[AdapterCase], None], mode: str):
    facts: Any = {"run": run, "beside": Louder, "condition": value_of(mode)}
    law(AdapterCase(lambda: made(mode), small, targets=targets(mode), **facts))


def test_conflicts_are_declared_by_both():
    for name, spec in MANIFEST.items():
        others = [other for other in spec.get("conflicts", ()) if other in MANIFEST]
        assert all(name in MANIFEST[other]["conflicts"] for other in others)


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_of_three_equals_three_singles(mode: str):
    model, scales = small(), [1.0, 0.0, 0.5]
    adapter, value = made(mode).inject(model), value_of(mode)
    conditions = {adapter: Condition(value, scale=0.7)}
    options: Any = {"seed": [1, 2, 3], "steps": 1}
    batch = latents(model, conditions=conditions, **options)
    by_branch = latents(model, conditions=conditions, sequential=True, **options)
    torch.testing.assert_close(by_branch, batch, rtol=1e-4, atol=1e-5)
    by_picture = {adapter: Condition(value, scale=scales)}
    if mode == "kohya-hires":
        with pytest.raises(ConditionError, match="shrinks all pictures alike"):
            latents(model, conditions=by_picture)
        mixed = None
    else:
        mixed = latents(model, conditions=by_picture, **options)
    for i in range(3):
        alone: Any = {"prompt": PROMPTS[i], "negative_prompt": NEGATIVES[i]}
        alone |= {"seed": i + 1, "steps": 1}
        single = latents(model, **alone, conditions=conditions)
        torch.testing.assert_close(batch[i], single[0], rtol=1e-4, atol=1e-5)
        if mixed is not None:
            scaled = latents(
                model, **alone, conditions={adapter: Condition(value, scale=scales[i])}
            )
            torch.testing.assert_close(mixed[i], scaled[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "kohya-hires"])
def test_it_acts_in_its_span_alone(mode: str):
    model, seen = small(), dict[str, list[Tensor]]()

    def steps(label: str, **options: Any) -> None:
        seen[label] = []
        latents(model, callback=lambda *step: seen[label].append(step[1].clone()), **options)

    steps("bare")
    adapter = made(mode).inject(model)
    steps("late", conditions={adapter: Condition(value_of(mode), start=0.5)})
    same = [torch.equal(a, b) for a, b in zip(seen["bare"], seen["late"], strict=True)]
    assert same == [True, False]


@pytest.fixture(scope="module")
def sdxl() -> tuple[LatentDiffusion, Tensor]:
    model = tiny_sdxl().to(dtype=torch.bfloat16)
    return model, latents(model, "a star", guidance=1.0, negative_prompt="")


@pytest.mark.parametrize("mode", MODES)
def test_it_acts_on_sdxl_without_guidance_and_in_its_dtype(mode: str, sdxl: Any):
    model, bare = sdxl
    adapter = made(mode).inject(model)
    conditions = {} if value_of(mode) is None else {adapter: value_of(mode)}
    changed = latents(model, "a star", guidance=1.0, negative_prompt="", conditions=conditions)
    adapter.eject()
    assert changed.dtype == torch.bfloat16
    assert changed.isfinite().all()
    assert not torch.equal(changed, bare)
