"""Every cache keeps the contract, and treats each picture of a batch as if it were alone."""

import copy
import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import pytest
import torch
from refiners_cache.deep import DeepCache
from refiners_cache.first_block import FirstBlockCache
from refiners_cache.gate import TGate
from refiners_cache.tea import TeaCache
from torch import Tensor

from refiners_core import Adapter, Condition
from refiners_core.errors import ConditionError
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.unet import UNetConfig
from refiners_core.testing import LAWS, AdapterCase, tiny_model, tiny_sdxl

MANIFEST = tomllib.loads((files("refiners_cache") / "adapter.toml").read_text())["adapter"]
PROMPTS, NEGATIVES = ["a red circle", "two cats", "a star"], ["blue", "a dog", "dark"]
OPTIONS: dict[str, Any] = {
    **{"steps": 4, "guidance": 3.0, "sampler": "ddim"},
    **{"output": "latents", "progress": False},
}
SIZES: dict[str, Any] = {
    **{"channels": (8,), "layers": (2,), "depths": (1,), "heads": (2,)},
    **{"text_width": 8, "groups": 4},
}
BARE = tiny_model(unet=UNetConfig(**SIZES))


def small() -> LatentDiffusion:
    """Returns a small model; a copy takes less time than to build another."""
    return copy.deepcopy(BARE)


MAKES: Mapping[str, Callable[[], Adapter]] = {
    "deepcache": lambda: DeepCache(key="deep"),
    "t-gate": lambda: TGate(key="gate", gate_step=2, warm_up=0),
    "teacache": lambda: TeaCache(key="tea", threshold=1.0),
    "first-block-cache": lambda: FirstBlockCache(key="first", threshold=0.3),
}
"""Each acts in three steps."""
NOTHING: Mapping[str, Callable[[], Adapter]] = {
    "deepcache": lambda: DeepCache(key="deep", interval=1),
    "t-gate": lambda: TGate(key="gate", gate_step=5, sp_interval=1),
    "teacache": lambda: TeaCache(key="tea", threshold=0.0),
    "first-block-cache": lambda: FirstBlockCache(key="first", threshold=0),
}
"""Each keeps the network as it is."""


def latents(model: LatentDiffusion, prompt: Any = PROMPTS, **options: Any) -> Tensor:
    negative: Any = NEGATIVES if isinstance(prompt, list) else "blue"
    negative = "" if options.get("guidance") == 1.0 else negative
    arguments: dict[str, Any] = {"seed": 7, "negative_prompt": negative, **OPTIONS, **options}
    return model.generate(prompt, **arguments)


def run(model: Any, conditions: Any) -> Tensor:
    return latents(model, "a red circle", conditions=conditions, steps=3)


def targets(name: str) -> list[tuple[str, str]]:
    (variant,) = MANIFEST[name]["variant"]
    return [(target["slot"], target["stage"]) for target in variant["targets"]]


def test_all_adapters_of_the_manifest_are_tried():
    assert MAKES.keys() == MANIFEST.keys()


def test_conflicts_are_declared_by_both():
    for name, spec in MANIFEST.items():
        assert all(name in MANIFEST[other]["conflicts"] for other in spec.get("conflicts", ()))


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("law", LAWS)
def test_each_keeps_the_contract(law: Callable[[AdapterCase], None], name: str):
    # DeepCache skips whole levels on the way up only where there are several.
    model = tiny_model if law.__name__ == "edits_what_it_declares" else small
    law(AdapterCase(MAKES[name], model, targets=targets(name), run=run))


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

    steps("bare", steps=5)
    adapter = MAKES[name]().inject(model)
    steps("late", steps=5, conditions={adapter: Condition(start=0.4)})
    equal = [torch.equal(a, b) for a, b in zip(seen["bare"], seen["late"], strict=True)]
    assert equal == [True, True, True, False, False]  # the first one it acts at is full


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("sampler", ["ddim", "heun"])
def test_without_anything_to_skip_it_changes_no_bit(name: str, sampler: str):
    model = small()
    bare = latents(model, sampler=sampler)
    with NOTHING[name]().on(model):
        assert torch.equal(latents(model, sampler=sampler), bare)
    with MAKES[name]().on(model):
        assert not torch.allclose(latents(model, sampler=sampler), bare, atol=1e-5)


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("build", [small, tiny_sdxl])
def test_it_acts_on_other_models_and_sizes(name: str, build: Callable[[], LatentDiffusion]):
    model = build().to(dtype=torch.bfloat16)
    options: dict[str, Any] = {"size": (24, 40), "guidance": 6.0, "steps": 3}
    bare = latents(model, **options)
    MAKES[name]().inject(model)
    changed = latents(model, **options)
    assert changed.dtype == torch.bfloat16
    assert changed.isfinite().all()
    assert not torch.equal(changed, bare)


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("scale", [[1.0, 0.0, 1.0], {"unet.mid": 1.0}])
def test_a_cache_acts_in_all_pictures_and_places_or_in_none(name: str, scale: Any):
    model = small()
    adapter = MAKES[name]().inject(model)
    with pytest.raises(ConditionError, match="but none of its layers reads the scale"):
        latents(model, conditions={adapter: Condition(scale=scale)})
