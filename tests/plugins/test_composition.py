"""The adapters of six packages on one model: any two or three of them, in any order."""

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from refiners_controlnet.adapter import ControlNet
from refiners_instantid.adapter import InstantId
from refiners_ipadapter.adapter import IpAdapter
from refiners_lora.adapter import Lora
from refiners_stylealigned.adapter import StyleAligned
from refiners_t2iadapter.adapter import T2iAdapter

from refiners_core import Adapter
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
    "image": PICTURE,
    "maps": PICTURE,
    "identity": {"face": FACE, "keypoints": POINTS},
    "style": None,
    "lora": None,
}
SIZES = {"sd15": 5, "sdxl": 6}  # InstantID is published for Stable Diffusion XL only
PAIRS = [(base, pair) for base in BASES for pair in itertools.permutations(range(SIZES[base]), 2)]
TRIPLES = [
    (base, tuple(random.Random(f"{base} {i}").sample(range(SIZES[base]), 3)))
    for base in BASES
    for i in range(60)
]


def adapters(base: str) -> list[Adapter]:
    found: list[Adapter] = [
        ControlNet(channels=(4, 8, 8), key="control"),
        IpAdapter(encoder=ENCODER, tokens=2, key="image"),
        T2iAdapter(key="maps"),
        StyleAligned(key="style"),
        Lora(rank=2, key="lora"),
    ]
    if base == "sdxl":
        sizes = ResamplerConfig(width=16, heads=1, depth=1, inner=16, tokens=2)
        found.append(InstantId(resampler=sizes, channels=(4, 8, 8), key="identity"))
    return found


@dataclass(frozen=True)
class Stage:
    """A model and the adapters that were made for it, none of them worn."""

    model: LatentDiffusion
    adapters: list[Adapter]
    bare: Any
    layers: dict[str, int]
    outcomes: dict[frozenset[str], Any]

    def made(self) -> Any:
        """Returns the bits of what the model makes of what it wears now."""
        worn = self.model.adapters
        with torch.random.fork_rng():
            latents = self.model.generate(
                ["a cat", "a dog"],
                conditions={one: CONDITIONS[one.key] for one in worn if one.takes_condition},
                steps=1,
                guidance=3.0,
                seed=7,
                output="latents",
                progress=False,
            )
        return bits(latents)

    def without(self, adapter: Adapter, worn: list[Adapter]) -> Any:
        """Returns what is made of all that is worn but one."""
        names = frozenset(other.key for other in worn if other is not adapter)
        if names not in self.outcomes:
            adapter.eject()
            self.outcomes[names] = self.made()
            adapter.inject(self.model)
        return self.outcomes[names]


def layers_of(model: LatentDiffusion) -> dict[str, int]:
    """Returns which layer is where, by path, and which mapping each chain has."""
    found = {name: id(layer) for name, layer in model.named_modules()}
    return found | {f"{name} mapping": id(m._modules) for name, m in model.named_modules()}


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    made: dict[str, Stage] = {}
    for base, build in BASES.items():
        model, chance = build(), torch.Generator().manual_seed(3)
        stage = Stage(model, adapters(base), None, {}, {})
        for adapter in stage.adapters:
            adapter.inject(model).eject()
            with torch.no_grad():
                for weight in adapter.parameters():
                    weight.copy_(torch.randn(weight.shape, generator=chance) * 0.2)
        made[base] = Stage(model, stage.adapters, stage.made(), layers_of(model), {})
    return made


def check_together(stage: Stage, worn: list[Adapter], chance: random.Random) -> None:
    """Wears some adapters in this order, compares with any other order, and takes them off."""
    for adapter in worn:
        adapter.inject(stage.model)
    outcome = stage.made()
    names = frozenset(adapter.key for adapter in worn)
    assert stage.outcomes.setdefault(names, outcome) == outcome, "the order made a difference"
    for adapter in worn:
        assert stage.without(adapter, worn) != outcome, f"{adapter.key} had no effect"
    for adapter in chance.sample(worn, len(worn)):
        adapter.eject()
    assert layers_of(stage.model) == stage.layers
    assert stage.made() == stage.bare


@pytest.mark.parametrize(("base", "pair"), PAIRS)
def test_two_are_worn_in_any_order_and_leave_nothing(
    base: str, pair: tuple[int, ...], stages: dict[str, Stage]
):
    stage = stages[base]
    check_together(stage, [stage.adapters[i] for i in pair], random.Random(str(pair)))


@pytest.mark.parametrize(("base", "triple"), TRIPLES)
def test_three_are_worn_in_any_order_and_leave_nothing(
    base: str, triple: tuple[int, ...], stages: dict[str, Stage]
):
    stage = stages[base]
    check_together(stage, [stage.adapters[i] for i in triple], random.Random(str(triple)))


@pytest.mark.parametrize("base", BASES)
def test_none_edits_the_layers_of_another(base: str, stages: dict[str, Stage]):
    stage = stages[base]
    alone = {a.key: edited(a, stage.model) for a in stage.adapters}
    assert all(alone.values())
    for adapter in stage.adapters:
        adapter.inject(stage.model)
    assert {a.key: edited(a, stage.model) for a in stage.adapters} == alone
    weights = [id(w) for a in stage.adapters for w in a.parameters()]
    assert len(weights) == len(set(weights))
    stage.model.eject_all()
    assert stage.made() == stage.bare


def edited(adapter: Adapter, model: LatentDiffusion) -> list[tuple[str, str, str, int]]:
    """Returns the places that an adapter edits, how, and the base layer that is there."""
    edits: Any = adapter.edits(model)
    return [
        (seat.path, edit.kind, edit.stage, id(seat.layer)) for edit in edits for seat in edit.seats
    ]
