"""Ten adapters of different kinds on one model, in every order that there is time for."""

import random
from collections.abc import Iterable
from typing import Any

import control_lora
import controlnet
import freeu
import ip_adapter
import lora
import pytest
import reference_only
import style_aligned
import torch
from torch import Tensor

from refiners_core import Adapter
from refiners_core.models.unet import UNET_KEYS, UNetConfig
from refiners_core.surgery.plan import worn
from refiners_core.testing import tiny_model
from refiners_core.testing.case import bits
from refiners_core.weights import load, published, read, save

from .test_contract import LATENTS, PICTURE


def ten() -> dict[Adapter, Any]:
    """Adapters that may all be worn at once, with what each is told."""
    return {
        ip_adapter.ImagePrompt(key="image-a"): PICTURE,
        ip_adapter.ImagePrompt(key="image-b"): 1 - PICTURE,
        controlnet.ControlNet(key="control-a"): PICTURE,
        controlnet.ControlNet(key="control-b"): 1 - PICTURE,
        control_lora.ControlLora(key="control-lora"): PICTURE,
        style_aligned.StyleAligned(key="style"): None,
        reference_only.Reference(key="reference"): LATENTS,
        freeu.FreeU(key="free"): None,
        lora.LowRank(key="lora-a"): None,
        lora.LowRank(lora.LokrChange, key="lora-b"): None,
    }


def generate(model: Any, told: dict[Adapter, Any]) -> Tensor:
    conditions = {one: told[one] for one in worn(model) if one.takes_condition}
    options = {"steps": 1, "guidance": 3.0, "seed": 7, "output": "latents", "progress": False}
    return model.generate("a red circle", count=2, conditions=conditions, **options)


@pytest.fixture(scope="module")
def dressed() -> tuple[Any, dict[Adapter, Any], Any, Any]:
    """A model, ten adapters that were built for it, and what it does bare and wearing all."""
    torch.manual_seed(0)
    model, told = tiny_model(), ten()
    bare = bits(generate(model, told))
    for adapter in told:
        adapter.inject(model)
    with torch.no_grad():
        for adapter in told:
            for weight in adapter.parameters():
                if not weight.any():
                    weight.normal_(std=0.1)
    everything = bits(generate(model, told))
    for adapter in told:
        adapter.eject()
    assert bits(generate(model, told)) == bare
    return model, told, bare, everything


@pytest.mark.parametrize("seed", range(60))
def test_any_order_with_any_detour_leads_to_the_same_bits(dressed, seed):
    model, told, bare, everything = dressed
    chance = random.Random(seed)
    for adapter in chance.sample(list(told), len(told)):
        adapter.inject(model)
        if chance.random() < 0.4:  # a detour
            other = chance.choice(worn(model))
            other.eject()
            if chance.random() < 0.5:
                other.inject(model)
    for adapter in told:
        if not adapter.is_worn:
            adapter.inject(model)
    assert bits(generate(model, told)) == everything
    for adapter in chance.sample(list(told), len(told)):
        adapter.eject()
    assert bits(generate(model, told)) == bare


def step(told: Iterable[Adapter]) -> dict[str, Any]:
    """What one call of the UNet is told while they all act."""
    rows = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1))
    context: dict[str, Any] = {"timestep": torch.tensor(500), "text": rows, "branches": ("cond",)}
    for adapter in told:
        context[adapter.scale_key] = torch.tensor(0.7)
        context[adapter.context_key("tokens")] = rows
        context[adapter.context_key("features")] = torch.ones(2, 4, 8, 8)
        context[adapter.context_key("mode")] = "write"
    return context


class Counted:
    """A backend that counts the graphs it is given."""

    def __init__(self) -> None:
        torch.compiler.reset()
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Any:
        self.graphs += 1
        return graph


@pytest.fixture
def smallest() -> Any:
    """A model whose UNet has one level: tracing takes as long as there are layers."""
    config = UNetConfig(channels=(8,), layers=(1,), depths=(1,), heads=(2,), text_width=8, groups=4)
    return tiny_model(unet=config)


def one_of_each_kind() -> list[Adapter]:
    return [
        ip_adapter.ImagePrompt(key="image"),
        controlnet.ControlNet(key="control"),
        style_aligned.StyleAligned(key="style"),
        reference_only.Reference(key="reference"),
        freeu.FreeU(key="free"),
        lora.LowRank(slots=("unet.conv_in",), key="lora"),
    ]


@torch.no_grad()
@pytest.mark.parametrize(
    "make", [one_of_each_kind, pytest.param(ten, marks=pytest.mark.slow)], ids=["kinds", "ten"]
)
def test_a_unet_that_wears_many_compiles_to_one_graph_and_again_to_none(smallest, make):
    model, told = smallest, list(make())
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    for adapter in told:
        adapter.inject(model)
    counted = Counted()
    compiled = torch.compile(model.unet, backend=counted, fullgraph=True)
    eager = bits(model.unet(x, context=step(told)))
    assert bits(compiled(x, context=step(told))) == eager
    assert counted.graphs == 1
    for adapter in told[::3]:
        adapter.eject()
    for adapter in told[::3]:
        adapter.inject(model)
    assert bits(compiled(x, context=step(told))) == eager
    assert counted.graphs == 1


@torch.no_grad()
@pytest.mark.parametrize("is_strict", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_unet_that_wears_a_lora_and_a_controlnet_is_exported(smallest, is_strict):
    model, told = smallest, [one for one in one_of_each_kind() if one.key in ("control", "lora")]
    torch.compiler.reset()
    for adapter in told:
        adapter.inject(model)
    context = {k: v for k, v in step(told).items() if isinstance(v, Tensor)}
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    unet = model.unet
    program = torch.export.export(unet, (x,), kwargs={"context": context}, strict=is_strict)
    assert bits(program.module()(x, context=context)) == bits(unet(x, context=context))


@torch.no_grad()
def test_weights_are_saved_and_loaded_as_if_nothing_were_worn(smallest, tmp_path):
    model, told = smallest, one_of_each_kind()
    save(model.unet, tmp_path / "bare.safetensors", UNET_KEYS)
    for adapter in (*told, lora.Merged(merges(model), slots=("unet.conv",), key="merged")):
        adapter.inject(model)
    save(model.unet, tmp_path / "worn.safetensors", UNET_KEYS)
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("bare", "worn")]
    assert files[0] == files[1]
    other = {key: value + 1 for key, value in read(tmp_path / "bare.safetensors").items()}
    load(model.unet, other, UNET_KEYS)  # what is replaced is loaded as well
    model.eject_all()
    loaded = published(model.unet, UNET_KEYS)
    assert {key: bits(value) for key, value in loaded.items()} == {
        key: bits(value) for key, value in other.items()
    }


def merges(model: Any) -> lora.LowRank:
    changes = lora.LowRank(slots=("unet.conv",), key="changes").inject(model)
    return changes.eject()
