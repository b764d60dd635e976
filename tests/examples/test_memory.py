"""Adapters with a memory compute what a loop computes that is written out."""

from collections.abc import Callable
from typing import Any

import pytest
import t_gate
import torch
from refiners_cache.deep import DeepCache
from refiners_cache.tea import TeaCache
from refiners_guidance.perturbed_attention import PerturbedAttention
from refiners_guidance.projected import Projected
from refiners_regional.tiled import MultiDiffusion
from torch import Tensor

from refiners_core import Adapter, Condition, Context, Layer
from refiners_core.testing import tiny_model

from .walk import STEPS, generate, guided, walked


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


def run(layer: Any, context: Context, x: Tensor) -> Tensor:
    return layer(x, context=context) if isinstance(layer, Layer) else layer(x)


class Predictions:
    """The calls of the UNet, one function a step."""

    def __init__(self, model: Any) -> None:
        self.unet = model.unet
        self.kept: dict[str, Any] = {}

    def plain(self, x: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return self.unet(x, context={"timestep": timestep, "text": text})


class DeepAtTimes(Predictions):
    def __call__(self, step: int, x: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        unet, context = self.unet, Context({"timestep": timestep, "text": text})
        y = torch.cat([x, x])
        for layer in (unet.input, unet.time, unet.conv_in, unet.write, unet.down.layer("0")):
            y = run(layer, context, y)
        if step % 3 == 0:
            for layer in (unet.down.layer("1"), unet.mid, unet.up.layer("0")):
                y = run(layer, context, y)
            self.kept["deep"] = y
        y = run(unet.up.layer("1"), context, self.kept["deep"])
        return guided(unet.conv_out(unet.act(unet.norm_out(y))))


class Gated(Predictions):
    def __call__(self, step: int, x: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        layers = [seat.layer for seat in self.unet_attention]
        if step < 0.5 * STEPS:
            hooks = [
                layer.register_forward_hook(lambda layer, _, out: self.kept.update({layer: out}))
                for layer in layers
            ]
            prediction = guided(self.plain(torch.cat([x, x]), timestep, text))
        else:
            hooks = [
                layer.register_forward_hook(lambda layer, _, out: self.kept[layer][1:])
                for layer in layers
            ]
            prediction = self.plain(x, timestep, text[1:])
        for hook in hooks:
            hook.remove()
        return prediction

    unet_attention: Any = ()


def test_deep_levels_run_at_every_third_step(model):
    middle: list[int] = []
    hook = model.unet.mid.register_forward_hook(lambda *_: middle.append(1))
    with DeepCache(branch=1).on(model):
        made = generate(model)
    hook.remove()
    assert len(middle) == 2
    assert made.equal(walked(model, DeepAtTimes(model)))


def test_attention_to_the_text_is_reused_after_the_gate(model):
    with t_gate.TGate().on(model):
        made = generate(model)
    straight = Gated(model)
    straight.unet_attention = model.slot("unet.cross_attention")
    assert made.equal(walked(model, straight))


# --- together, one branch at a time, on tiles --------------------------------------------------

MAKES: dict[str, Callable[..., Adapter]] = {
    "DeepCache": lambda **options: DeepCache(branch=1, **options),
    "T-GATE": t_gate.TGate,
    "TeaCache": lambda **options: TeaCache(threshold=0.15, **options),
    "APG": Projected,
}


@pytest.mark.parametrize("name", MAKES)
def test_branches_that_run_apart_remember_their_own_rows(model, name):
    with MAKES[name]().on(model):
        together, alone = generate(model, count=2), generate(model, count=2, sequential=True)
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("span", [{"end": 0.4}, {"start": 0.6}], ids=str)
def test_a_branch_that_comes_or_goes_does_not_mix_rows(model, name, span):
    adapter, pag = MAKES[name](), PerturbedAttention()
    with adapter.on(model), pag.on(model):
        options = {"conditions": {pag: Condition(scale=0.5, **span)}, "count": 2}
        together, alone = generate(model, **options), generate(model, **options, sequential=True)
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


def test_each_tile_remembers_its_own_values(model):
    tiles, deep = MultiDiffusion(window=16, stride=16), DeepCache(branch=1)
    with tiles.on(model), deep.on(model):
        made = generate(model)

    class OnTiles(Predictions):
        def __call__(self, step: int, x: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
            result = torch.zeros_like(x)
            for i in range(4):
                tile = (..., slice(i // 2 * 4, i // 2 * 4 + 4), slice(i % 2 * 4, i % 2 * 4 + 4))
                part = self.kept.setdefault(str(i), DeepAtTimes(model))
                result[tile] = part(step, x[tile], timestep, text)
            return result

    assert torch.allclose(made, walked(model, OnTiles(model)), rtol=1e-5, atol=1e-5)


def test_all_of_them_work_at_once_in_any_order(model):
    adapters = [make(key=f"all-{i}") for i, make in enumerate(MAKES.values())]
    results: list[Tensor] = []
    for order in (adapters, adapters[::-1]):
        for adapter in order:
            adapter.inject(model)
        results.append(generate(model))
        model.eject_all()
    assert results[0].equal(results[1])
