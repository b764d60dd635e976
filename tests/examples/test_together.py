"""Ten adapters of different kinds on one model, in many random orders."""

import random
from collections.abc import Iterable
from typing import Any

import control_lora
import controlnet
import ip_adapter
import lora
import pytest
import style_aligned
import torch
from refiners_freeu.adapter import FreeU
from refiners_reference.attention import ReferenceOnly
from torch import Tensor

from refiners_core import Adapter, Memory
from refiners_core.models.unet import UNET_KEYS, UNetConfig
from refiners_core.surgery.plan import worn
from refiners_core.testing import tiny_model
from refiners_core.testing.case import bits
from refiners_core.weights import load, published, read, save

from .test_contract import PICTURE


def ten() -> dict[Adapter, Any]:
    """Returns adapters that can all be worn at once, with their conditions."""
    return {
        ip_adapter.ImagePrompt(key="image-a"): PICTURE,
        ip_adapter.ImagePrompt(key="image-b"): 1 - PICTURE,
        controlnet.ControlNet(key="control-a"): PICTURE,
        controlnet.ControlNet(key="control-b"): 1 - PICTURE,
        control_lora.ControlLora(key="control-lora"): PICTURE,
        style_aligned.StyleAligned(key="style"): None,
        ReferenceOnly(key="reference"): PICTURE,
        FreeU(key="free"): None,
        lora.LowRank(key="lora-a"): None,
        lora.LowRank(lora.LokrChange, key="lora-b"): None,
    }


def generate(model: Any, values: dict[Adapter, Any]) -> Tensor:
    conditions = {adapter: values[adapter] for adapter in worn(model) if adapter.takes_condition}
    options = {"steps": 1, "guidance": 3.0, "seed": 7, "output": "latents", "progress": False}
    return model.generate("a red circle", count=2, conditions=conditions, **options)


@pytest.fixture(scope="module")
def prepared() -> tuple[Any, dict[Adapter, Any], Any, Any]:
    """Returns a model, ten adapters built for it, and its latents bare and with all of them."""
    torch.manual_seed(0)
    model, adapters = tiny_model(), ten()
    bare = bits(generate(model, adapters))
    for adapter in adapters:
        adapter.inject(model)
    with torch.no_grad():
        for adapter in adapters:
            for weight in adapter.parameters():
                if not weight.any():
                    weight.normal_(std=0.1)
    everything = bits(generate(model, adapters))
    for adapter in adapters:
        adapter.eject()
    assert bits(generate(model, adapters)) == bare
    return model, adapters, bare, everything


@pytest.mark.parametrize("seed", range(60))
def test_any_order_with_detours_gives_the_same_bits(prepared, seed):
    model, adapters, bare, everything = prepared
    order = random.Random(seed)
    for adapter in order.sample(list(adapters), len(adapters)):
        adapter.inject(model)
        if order.random() < 0.4:  # a detour
            other = order.choice(worn(model))
            other.eject()
            if order.random() < 0.5:
                other.inject(model)
    for adapter in adapters:
        if not adapter.is_worn:
            adapter.inject(model)
    assert bits(generate(model, adapters)) == everything
    for adapter in order.sample(list(adapters), len(adapters)):
        adapter.eject()
    assert bits(generate(model, adapters)) == bare


def step(adapters: Iterable[Adapter]) -> dict[str, Any]:
    """Returns the context of one call of the UNet in which all adapters are active."""
    rows = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1))
    context: dict[str, Any] = {"timestep": torch.tensor(500), "text": rows, "branches": ("cond",)}
    for adapter in adapters:
        context[adapter.scale_key] = torch.tensor(0.7)
        context[adapter.context_key("tokens")] = rows
        context[adapter.context_key("features")] = torch.ones(2, 4, 8, 8)
        context[adapter.context_key("records")] = Memory()
    return context


class Counted:
    """A backend that counts the compiled graphs."""

    def __init__(self) -> None:
        torch.compiler.reset()
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Any:
        self.graphs += 1
        return graph


@pytest.fixture
def smallest() -> Any:
    """Returns a model whose UNet has one level, because the time of tracing grows with layers."""
    config = UNetConfig(channels=(8,), layers=(1,), depths=(1,), heads=(2,), text_width=8, groups=4)
    return tiny_model(unet=config)


def one_of_each_kind() -> list[Adapter]:
    return [
        ip_adapter.ImagePrompt(key="image"),
        controlnet.ControlNet(key="control"),
        style_aligned.StyleAligned(key="style"),
        ReferenceOnly(key="reference"),
        FreeU(key="free"),
        lora.LowRank(slots=("unet.conv_in",), key="lora"),
    ]


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("make", [one_of_each_kind, ten], ids=["kinds", "ten"])
def test_a_unet_that_wears_many_compiles_to_one_graph_once(smallest, make):
    model, adapters = smallest, list(make())
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    for adapter in adapters:
        adapter.inject(model)
    counted = Counted()
    compiled = torch.compile(model.unet, backend=counted, fullgraph=True)
    eager = bits(model.unet(x, context=step(adapters)))
    assert bits(compiled(x, context=step(adapters))) == eager
    assert counted.graphs == 1
    for adapter in adapters[::3]:
        adapter.eject()
    for adapter in adapters[::3]:
        adapter.inject(model)
    assert bits(compiled(x, context=step(adapters))) == eager
    assert counted.graphs == 1


@torch.no_grad()
@pytest.mark.parametrize("is_strict", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_unet_that_wears_a_lora_and_a_controlnet_is_exported(smallest, is_strict):
    model = smallest
    adapters = [adapter for adapter in one_of_each_kind() if adapter.key in ("control", "lora")]
    torch.compiler.reset()
    for adapter in adapters:
        adapter.inject(model)
    context = {k: v for k, v in step(adapters).items() if isinstance(v, Tensor)}
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    unet = model.unet
    program = torch.export.export(unet, (x,), kwargs={"context": context}, strict=is_strict)
    assert bits(program.module()(x, context=context)) == bits(unet(x, context=context))


@torch.no_grad()
def test_worn_adapters_do_not_change_how_weights_are_saved_and_loaded(smallest, tmp_path):
    model, adapters = smallest, one_of_each_kind()
    save(model.unet, tmp_path / "bare.safetensors", UNET_KEYS)
    for adapter in (*adapters, lora.Merged(merges(model), slots=("unet.conv",), key="merged")):
        adapter.inject(model)
    save(model.unet, tmp_path / "worn.safetensors", UNET_KEYS)
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("bare", "worn")]
    assert files[0] == files[1]
    other = {key: value + 1 for key, value in read(tmp_path / "bare.safetensors").items()}
    load(model.unet, other, UNET_KEYS)  # loads replaced layers as well
    model.eject_all()
    loaded = published(model.unet, UNET_KEYS)
    assert {key: bits(value) for key, value in loaded.items()} == {
        key: bits(value) for key, value in other.items()
    }


def merges(model: Any) -> lora.LowRank:
    changes = lora.LowRank(slots=("unet.conv",), key="changes").inject(model)
    return changes.eject()
