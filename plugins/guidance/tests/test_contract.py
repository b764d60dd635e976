"""Every adapter keeps the contract, and treats each picture of a batch as if it were alone."""

import copy
import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import pytest
import refiners
import torch
from refiners.errors import OptionError
from refiners_guidance.auto import AutoGuidance
from refiners_guidance.perp_neg import PerpNeg
from refiners_guidance.perturbed_attention import PerturbedAttention
from refiners_guidance.plus_plus import PlusPlus
from refiners_guidance.projected import Projected
from refiners_guidance.rescale import Rescale
from refiners_guidance.self_attention import SelfAttentionGuidance
from refiners_guidance.smoothed_energy import SmoothedEnergy
from refiners_guidance.tangential import Tangential
from refiners_guidance.threshold import DynamicThreshold
from refiners_guidance.zero_star import ZeroStar
from torch import Tensor

from refiners_core import Adapter, Chain, Condition, Lambda
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.unet import UNetConfig
from refiners_core.testing import LAWS, AdapterCase, tiny_model, tiny_sdxl

MANIFEST = tomllib.loads((files("refiners_guidance") / "adapter.toml").read_text())["adapter"]
PROMPTS, NEGATIVES = ["a red circle", "two cats", "a star"], ["blue", "a dog", "dark"]
OPTIONS: dict[str, Any] = {
    **{"steps": 3, "guidance": 3.0, "sampler": "ddim"},
    **{"output": "latents", "progress": False},
}


SIZES: dict[str, Any] = {"channels": (8,), "layers": (1,), "depths": (1,), "heads": (2,)}
BARE = tiny_model(unet=UNetConfig(**SIZES, text_width=8, groups=4))


def small() -> LatentDiffusion:
    """Returns a model with one level; a copy takes less time than to build another."""
    return copy.deepcopy(BARE)


def weak(build: Callable[[], LatentDiffusion] = small) -> LatentDiffusion:
    """Returns a model with other weights."""
    model = build()
    noise = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.unet.parameters():
            weight.add_(torch.randn(weight.shape, generator=noise) * 0.02)
    return model


MAKES: Mapping[str, Callable[[], Adapter]] = {
    "pag": lambda: PerturbedAttention(key="pag"),
    "seg": lambda: SmoothedEnergy(key="seg"),
    "sag": lambda: SelfAttentionGuidance(key="sag"),
    "autoguidance": lambda: AutoGuidance(key="auto", weak=weak()),
    "cfg-zero-star": lambda: ZeroStar(key="zero"),
    "tcfg": lambda: Tangential(key="tcfg"),
    "apg": lambda: Projected(key="apg", threshold=4.0),
    "perp-neg": lambda: PerpNeg(key="perp"),
    "cfg-plus-plus": lambda: PlusPlus(key="plus"),
    "dynamic-thresholding": lambda: DynamicThreshold(key="threshold", mimic=1.5, percentile=0.9),
    "cfg-rescale": lambda: Rescale(key="rescale"),
}
WITHOUT_GUIDANCE = ("pag", "seg", "sag", "autoguidance")


class Louder(Adapter):
    """Makes the result of guidance larger."""

    def edits(self, model: Any) -> Any:
        louder = Lambda(lambda x: 1.1 * x)
        guidance = model.slot("denoise.guidance")
        return guidance.wrap(lambda inner, seat: Chain(inner, louder), stage="output")


def latents(model: LatentDiffusion, prompt: Any = PROMPTS, **options: Any) -> Tensor:
    negative: Any = NEGATIVES if isinstance(prompt, list) else "blue"
    negative = "" if options.get("guidance") == 1.0 else negative
    arguments: dict[str, Any] = {"seed": 7, "negative_prompt": negative, **OPTIONS, **options}
    return model.generate(prompt, **arguments)


def run(model: Any, conditions: Any) -> Tensor:
    return latents(model, "a red circle", conditions=conditions, count=1, steps=1)


def targets(name: str) -> list[tuple[str, str]]:
    (variant,) = MANIFEST[name]["variant"]
    return [(target["slot"], target["stage"]) for target in variant["targets"]]


ALL = [
    *[*MAKES][:4],
    *(pytest.param(name, marks=pytest.mark.slow) for name in [*MAKES][4:]),
]


def test_all_adapters_of_the_manifest_are_tried():
    assert MAKES.keys() == MANIFEST.keys()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("law", LAWS)
def test_each_keeps_the_contract(law: Callable[[AdapterCase], None], name: str):
    law(AdapterCase(MAKES[name], small, targets=targets(name), run=run, beside=Louder))


def test_conflicts_are_declared_by_both():
    for name, spec in MANIFEST.items():
        assert all(name in MANIFEST[other]["conflicts"] for other in spec.get("conflicts", ()))


@pytest.mark.parametrize("name", MAKES)
def test_a_batch_of_three_equals_three_singles(name: str):
    model = small()
    adapter = MAKES[name]().inject(model)
    batch = latents(model, seed=[1, 2, 3])
    by_branch = latents(model, seed=[1, 2, 3], sequential=True)
    mixed = latents(model, seed=[1, 2, 3], conditions={adapter: Condition(scale=[1.0, 0.0, 0.5])})
    for i in range(3):
        alone: Any = {"prompt": PROMPTS[i], "negative_prompt": NEGATIVES[i], "seed": i + 1}
        torch.testing.assert_close(batch[i], latents(model, **alone)[0], rtol=1e-4, atol=1e-5)
        scaled = {adapter: Condition(scale=[1.0, 0.0, 0.5][i])}
        single = latents(model, **alone, conditions=scaled)[0]
        torch.testing.assert_close(mixed[i], single, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(by_branch, batch, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MAKES)
def test_it_acts_in_its_span_alone(name: str):
    model, seen = small(), dict[str, list[Tensor]]()

    def steps(label: str, **options: Any) -> None:
        seen[label] = []
        latents(model, callback=lambda *step: seen[label].append(step[1].clone()), **options)

    steps("bare")
    adapter = MAKES[name]().inject(model)
    steps("late", conditions={adapter: Condition(start=0.5)})
    assert [torch.equal(a, b) for a, b in zip(seen["bare"], seen["late"], strict=True)] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("name", MAKES)
def test_without_guidance_it_acts_or_refuses(name: str):
    model = small()
    bare = latents(model, guidance=1.0)
    adapter = MAKES[name]().inject(model)
    if name in WITHOUT_GUIDANCE:
        assert not torch.allclose(latents(model, guidance=1.0), bare, atol=1e-3)
    elif name == "cfg-rescale":  # contrast that guidance did not add
        assert torch.allclose(latents(model, guidance=1.0), bare, atol=1e-5)
    else:
        with pytest.raises(ConditionError, match="which this generation does not have"):
            latents(model, guidance=1.0)
        assert torch.equal(latents(model, guidance=1.0, conditions={adapter: None}), bare)


WIDE: dict[str, Any] = {"size": (24, 40), "guidance": 6.0}


@pytest.fixture(scope="module")
def sdxl() -> tuple[LatentDiffusion, Tensor]:
    model = tiny_sdxl()
    return model, latents(model, **WIDE)


@pytest.mark.parametrize("name", [name for name in MAKES if name != "autoguidance"])
def test_it_acts_on_other_models_and_sizes(name: str, sdxl: tuple[LatentDiffusion, Tensor]):
    model, bare = sdxl
    with MAKES[name]().on(model):
        changed = latents(model, **WIDE)
    assert changed.isfinite().all()
    assert not torch.allclose(changed, bare, atol=1e-3)


@pytest.mark.parametrize("name", MAKES)
def test_it_computes_in_the_dtype_of_the_model(name: str):
    model = small().to(dtype=torch.bfloat16)
    MAKES[name]().inject(model)
    changed = latents(model)
    assert changed.dtype == torch.bfloat16
    assert changed.isfinite().all()


def test_the_weaker_model_must_be_another_of_the_same_kind():
    model = small()
    with pytest.raises(AdapterError, match="is this model itself"):
        AutoGuidance(weak=model).inject(model)
    with pytest.raises(AdapterError, match="has base sdxl, but this model has sd15"):
        AutoGuidance(weak=tiny_sdxl()).inject(model)
    worn = weak()
    PerturbedAttention(key="pag").inject(worn)
    with pytest.raises(AdapterError, match="wears pag"):
        AutoGuidance(weak=worn)


@pytest.mark.parametrize("sampler", ["dpm++-2m", "heun", "lcm"])
def test_cfg_plus_plus_refuses_samplers_for_which_it_is_not_defined(sampler: str):
    model = small()
    PlusPlus(key="plus").inject(model)
    with pytest.raises(ConditionError, match="is defined for DDIM and for Euler"):
        latents(model, sampler=sampler)


@pytest.mark.parametrize("name", ["0", "blocks", "tokens", "transformer_0", "up.7", "unet", ""])
def test_only_levels_of_the_unet_are_layers(name: str):
    adapter = PerturbedAttention(layers=[name])
    with pytest.raises(
        AdapterError, match=r"has some in .*down\.0, down\.1, mid, up, up\.0"
    ) as error:
        adapter.inject(tiny_model())
    assert error.value.hint == 'Try layers=["mid"].'


def test_the_missing_weaker_model_is_named():
    with pytest.raises(OptionError, match=r"missing .*'weak'\. Pass weak=\.\.\. as well"):
        refiners.load_adapter("autoguidance", strength=2.0)
