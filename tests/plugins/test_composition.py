"""The adapters of all packages on one model: pairs and triples of them, in any order."""

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from refiners_controllora.adapter import ControlLora
from refiners_controlnet.adapter import ControlNet
from refiners_controlnet.union import UnionControlNet
from refiners_guidance.branch import ExtraPass
from refiners_guidance.perturbed_attention import PerturbedAttention
from refiners_instantid.adapter import InstantId
from refiners_ipadapter.adapter import IpAdapter
from refiners_lora.adapter import Lora
from refiners_stylealigned.adapter import StyleAligned
from refiners_t2iadapter.adapter import T2iAdapter
from refiners_t2iadapter.style import StyleAdapter
from refiners_t2iadapter.style_network import StyleConfig
from refiners_textualinversion.adapter import TextualInversion

from refiners_core import Adapter, Condition
from refiners_core.models.clip import ClipImageConfig
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.image_prompt import ResamplerConfig
from refiners_core.testing import tiny_model, tiny_sdxl
from refiners_core.testing.case import bits

BASES: Mapping[str, Callable[[], LatentDiffusion]] = {"sd15": tiny_model, "sdxl": tiny_sdxl}
PICTURE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
ENCODER = ClipImageConfig(
    image_size=32, patch_size=16, width=8, inner_width=16, layers=1, heads=2, projection_width=8
)
FACE = torch.randn(512, generator=torch.Generator().manual_seed(5))
POINTS = [(10, 12), (22, 12), (16, 17), (11, 23), (21, 23)]
CONDITIONS: Mapping[str, Any] = {
    "control": PICTURE,
    "control-lora": PICTURE,
    "union": {"canny": PICTURE, "depth": 1 - PICTURE},
    "image": PICTURE,
    "maps": PICTURE,
    "identity": {"face": FACE, "keypoints": POINTS},
    "style": Condition(),
    "lora": None,
    "word": None,
    "tokens": PICTURE,
}
SIZES = {"sd15": 9, "sdxl": 9}  # the last one is published for this base only
PAIRS = [(base, pair) for base in BASES for pair in itertools.permutations(range(SIZES[base]), 2)]
TRIPLES = [
    (base, tuple(random.Random(f"{base} {i}").sample(range(SIZES[base]), 3)))
    for base in BASES
    for i in range(60)
]


def adapters(base: str) -> list[Adapter]:
    made: list[Adapter] = [
        ControlNet(channels=(4, 8, 8), key="control"),
        IpAdapter(encoder=ENCODER, tokens=2, key="image"),
        T2iAdapter(key="maps"),
        StyleAligned(key="style"),
        Lora(rank=2, key="lora"),
        ControlLora(rank=2, channels=(4, 8, 8), guess="original", key="control-lora"),
        UnionControlNet(channels=(4, 8, 8), key="union"),
        TextualInversion(word="cat", key="word"),
    ]
    if base == "sdxl":
        sizes = ResamplerConfig(width=16, heads=1, depth=1, inner=16, tokens=2)
        made.append(InstantId(resampler=sizes, channels=(4, 8, 8), key="identity"))
    else:
        config = StyleConfig(tokens=2, layers=1, heads=2)
        made.append(StyleAdapter(encoder=ENCODER, config=config, key="tokens"))
    return made


@dataclass(frozen=True)
class Stage:
    """A model and the adapters built for it, none of them worn."""

    model: LatentDiffusion
    adapters: list[Adapter]
    bare: Any
    layers: dict[str, int]
    outcomes: dict[frozenset[str], Any]

    def generated(self) -> Any:
        """Returns the bits of the latents that the model generates with its adapters."""
        worn = self.model.adapters
        with torch.random.fork_rng():
            latents = self.model.generate(
                ["a cat", "a dog"],
                conditions={
                    adapter: CONDITIONS[adapter.key] for adapter in worn if adapter.takes_condition
                },
                steps=1,
                guidance=3.0,
                seed=7,
                output="latents",
                progress=False,
            )
        return bits(latents)

    def without(self, adapter: Adapter, worn: list[Adapter]) -> Any:
        """Returns the result with all worn adapters but one."""
        names = frozenset(other.key for other in worn if other is not adapter)
        if names not in self.outcomes:
            adapter.eject()
            self.outcomes[names] = self.generated()
            adapter.inject(self.model)
        return self.outcomes[names]


def layers_of(model: LatentDiffusion) -> dict[str, int]:
    """Returns the identities of layers and of their mappings of children, by path."""
    layers = {name: id(layer) for name, layer in model.named_modules()}
    return layers | {f"{name} mapping": id(m._modules) for name, m in model.named_modules()}


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    made: dict[str, Stage] = {}
    for base, build in BASES.items():
        model, generator = build(), torch.Generator().manual_seed(3)
        stage = Stage(model, adapters(base), None, {}, {})
        for adapter in stage.adapters:
            adapter.inject(model).eject()
            with torch.no_grad():
                for weight in adapter.parameters():
                    weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
        made[base] = Stage(model, stage.adapters, stage.generated(), layers_of(model), {})
    return made


def check_together(stage: Stage, worn: list[Adapter], order: random.Random) -> None:
    """Injects adapters in this order, compares with other orders, and ejects them in a random
    order."""
    for adapter in worn:
        adapter.inject(stage.model)
    outcome = stage.generated()
    names = frozenset(adapter.key for adapter in worn)
    assert stage.outcomes.setdefault(names, outcome) == outcome, "the order made a difference"
    for adapter in worn:
        assert stage.without(adapter, worn) != outcome, f"{adapter.key} had no effect"
    for adapter in order.sample(worn, len(worn)):
        adapter.eject()
    assert layers_of(stage.model) == stage.layers
    assert stage.generated() == stage.bare


@pytest.mark.parametrize(("base", "pair"), PAIRS)
def test_the_order_of_two_does_not_matter_and_leaves_no_trace(
    base: str, pair: tuple[int, ...], stages: dict[str, Stage]
):
    stage = stages[base]
    check_together(stage, [stage.adapters[i] for i in pair], random.Random(str(pair)))


@pytest.mark.slow
@pytest.mark.parametrize(("base", "triple"), TRIPLES)
def test_the_order_of_three_does_not_matter_and_leaves_no_trace(
    base: str, triple: tuple[int, ...], stages: dict[str, Stage]
):
    stage = stages[base]
    check_together(stage, [stage.adapters[i] for i in triple], random.Random(str(triple)))


class SamePass(ExtraPass):
    """A further pass that is not worse than that of the prompt."""

    def worse(self, attention: Any) -> Any:
        return ()


@pytest.mark.parametrize("is_sequential", [False, True])
@pytest.mark.parametrize("base", BASES)
def test_a_further_pass_has_all_of_the_pass_with_the_prompt(
    base: str, is_sequential: bool, stages: dict[str, Stage]
):
    stage = stages[base]
    for key in ("control", "image", "maps", "lora"):
        next(a for a in stage.adapters if a.key == key).inject(stage.model)
    area = torch.zeros(1, 1, 32, 32)
    area[..., :16] = 1.0
    options: dict[str, Any] = {
        "conditions": {
            a: Condition(torch.cat([PICTURE, 1 - PICTURE]), mask=area if a.takes_mask else None)
            for a in stage.model.adapters
            if a.takes_condition
        },
        **{"steps": 2, "guidance": 3.0, "seed": [1, 2], "output": "latents", "progress": False},
        **{"negative_prompt": ["blue", "dark"], "sequential": is_sequential},
    }
    expected = stage.model.generate(["a cat", "a dog"], **options)
    with SamePass(strength=30.0, key="same").on(stage.model):
        further = stage.model.generate(["a cat", "a dog"], **options)
    with PerturbedAttention(strength=30.0, key="pag").on(stage.model):
        worse = stage.model.generate(["a cat", "a dog"], **options)
    stage.model.eject_all()
    torch.testing.assert_close(further, expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(worse, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("base", BASES)
def test_no_adapter_edits_the_layers_of_another(base: str, stages: dict[str, Stage]):
    stage = stages[base]
    alone = {a.key: edited(a, stage.model) for a in stage.adapters}
    assert all(alone.values())
    for adapter in stage.adapters:
        adapter.inject(stage.model)
    assert {a.key: edited(a, stage.model) for a in stage.adapters} == alone
    weights = [id(w) for a in stage.adapters for w in a.parameters()]
    assert len(weights) == len(set(weights))
    stage.model.eject_all()
    assert stage.generated() == stage.bare


def edited(adapter: Adapter, model: LatentDiffusion) -> list[tuple[str, str, str, int]]:
    """Returns the places, kinds, stages and base layers of an adapter's edits."""
    edits: Any = adapter.edits(model)
    return [
        (seat.path, edit.kind, edit.stage, id(seat.layer)) for edit in edits for seat in edit.seats
    ]
