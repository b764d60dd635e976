"""A cache never reuses what was computed for something else."""

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from refiners_cache.deep import DeepCache
from refiners_cache.first_block import FirstBlockCache
from refiners_cache.gate import TGate
from refiners_cache.idle import Idle
from refiners_cache.tea import TeaCache
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Condition, Context, Edit, Lambda, Layer, Multiply, When
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.unet import UNetConfig
from refiners_core.testing import tiny_model

SIZES: dict[str, Any] = {
    **{"channels": (8,), "layers": (2,), "depths": (1,), "heads": (2,)},
    **{"text_width": 8, "groups": 4},
}
BARE = tiny_model(unet=UNetConfig(**SIZES))
CACHES: dict[str, Any] = {
    "deepcache": lambda: DeepCache(key="deep", interval=2, branch=1),
    "t-gate": lambda: TGate(key="gate", gate_step=1, warm_up=0, fi_interval=9),
    "teacache": lambda: TeaCache(key="tea", threshold=9.0),
    "first-block-cache": lambda: FirstBlockCache(key="first", threshold=9.0),
}


class Calls:
    """Counts the calls of the UNet, and records those in which a layer runs."""

    def __init__(self, model: LatentDiffusion, layer: nn.Module) -> None:
        self.count, self.full, self.rows = -1, list[int](), list[int]()
        model.unet.register_forward_pre_hook(self._begin)
        layer.register_forward_hook(lambda *_: self.full.append(self.count))

    def _begin(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.count += 1
        self.rows.append(len(inputs[0]))

    def clear(self) -> None:
        self.count = -1
        self.full.clear()
        self.rows.clear()


def watched(name: str) -> tuple[LatentDiffusion, Adapter, Calls]:
    """Returns a model that wears a cache, and the calls in which a cached layer runs."""
    model = copy.deepcopy(BARE)
    attention = model.slot("unet.cross_attention")[0].layer
    calls = Calls(model, attention if name == "t-gate" else model.unet.mid)
    return model, CACHES[name]().inject(model), calls


def run(model: LatentDiffusion, **options: Any) -> Tensor:
    arguments: dict[str, Any] = {"steps": 6, "guidance": 3.0, "sampler": "ddim", "seed": 7}
    return model.generate(
        "a red circle", **{**arguments, "output": "latents", "progress": False, **options}
    )


USUAL = {
    "deepcache": [0, 2, 4],
    "t-gate": [0],
    "teacache": [0, 5],  # and the last
    "first-block-cache": [0],
}


class Louder(Adapter):
    """Multiplies the prediction of the UNet by its scale."""

    def edits(self, model: Any) -> Iterable[Edit]:
        out = model.slot("unet.conv_out")
        return out.wrap(lambda inner, seat: Scaled(self.scale_key, inner), stage="output")


class Scaled(Chain):
    inner: nn.Module

    def __init__(self, key: str, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.key = key

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        out = self.call(self.inner, context, *inputs)
        return out * context[self.key] if context.get(self.key) is not None else out


@pytest.mark.parametrize("name", CACHES)
@pytest.mark.parametrize(
    ("condition", "forced"),
    [
        (Condition(start=0.5), [3]),
        (Condition(scale=lambda progress: 1.0 if progress < 0.5 else 0.5), [3]),
        (Condition(start=1 / 6, end=0.5), [1, 3]),
        (Condition(), []),
    ],
)
def test_a_call_is_full_where_another_adapter_changes(name: str, condition: Any, forced: list[int]):
    model, _, calls = watched(name)
    louder = Louder(key="louder").inject(model)
    run(model, conditions={louder: condition})
    assert set(forced) <= set(calls.full)
    if name == "deepcache":  # the interval is counted from the last full call
        expected = {(): [0, 2, 4], (3,): [0, 2, 3, 5], (1, 3): [0, 1, 3, 5]}[tuple(forced)]
        assert calls.full == expected
    else:
        assert calls.full == sorted({*USUAL[name], *forced})
    if name == "t-gate":  # each of these steps has both passes
        assert calls.rows == [2 if i in calls.full else 1 for i in range(6)]


class NewText(Adapter):
    """Changes the text of the prompt in the middle of a generation."""

    def edits(self, model: Any) -> Iterable[Edit]:
        return model.slot("denoise.branches").before("text", lambda seat: Retext(self.key))


class Retext(Layer):
    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        if context["step"] >= 3:
            text = dict(context["conditions"]["text"])
            changed = context.memory.get(f"{self.key}.text")
            text["cond"] = context.memory[f"{self.key}.text"] = (
                -text["cond"] if changed is None else changed
            )
            context["conditions"] = context["conditions"] | {"text": text}
        return inputs[0]


@pytest.mark.parametrize("name", CACHES)
def test_a_call_is_full_where_the_prompt_changes(name: str):
    model, _, calls = watched(name)
    NewText(key="text").inject(model)
    run(model)
    assert 3 in calls.full
    assert len(calls.full) < 6


@pytest.mark.parametrize("name", CACHES)
def test_nothing_survives_a_generation(name: str):
    model, _, calls = watched(name)
    fresh = copy.deepcopy(BARE)
    with CACHES[name]().on(fresh):
        expected = run(fresh, size=(24, 40))
    first = run(model)
    assert calls.full == USUAL[name]
    calls.clear()
    assert torch.equal(run(model, size=(24, 40)), expected)
    assert calls.full == USUAL[name]
    run(model, callback=lambda step, latents: step < 3)  # ends early
    assert torch.equal(run(model), first)


@pytest.mark.parametrize("name", CACHES)
def test_samplers_that_run_twice_in_a_step_are_counted_by_calls(name: str):
    model, _, calls = watched(name)
    run(model, steps=3, sampler="heun")  # calls 0 and 1 are those of the first step
    assert (
        calls.full
        == {
            "deepcache": [0, 2, 4],
            "t-gate": [0, 1],
            "teacache": [0, 4],
            "first-block-cache": [0],
        }[name]
    )
    if name == "t-gate":
        assert calls.rows == [2, 2, 1, 1, 1]


@pytest.mark.parametrize("name", CACHES)
def test_each_branch_has_its_own_values_when_passes_run_apart(name: str):
    model, _, calls = watched(name)
    together = run(model)
    calls.clear()
    torch.testing.assert_close(run(model, sequential=True), together, rtol=1e-4, atol=1e-5)
    guided = [2 if i in USUAL[name] else 1 for i in range(6)] if name == "t-gate" else [2] * 6
    first = [sum(guided[:i]) for i in range(6)]
    assert calls.full == [first[i] + branch for i in USUAL[name] for branch in (0, 1)]


class Again(Adapter):
    """Runs the network once more at each step, apart, and keeps what it predicts."""

    def edits(self, model: Any) -> Iterable[Edit]:
        self.seen: list[Tensor] = []

        def again(inner: nn.Module, seat: Any) -> nn.Module:
            return Twice(self.seen, inner)

        return model.slot("denoise.predict").wrap(again, stage="output")


class Twice(Chain):
    inner: nn.Module

    def __init__(self, seen: list[Tensor], inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.seen = seen

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        out = self.call(self.inner, context, *inputs)
        self.seen.append(self.call(self.inner, context.scope(), *inputs))
        return out


@pytest.mark.parametrize("name", ["deepcache", "teacache", "first-block-cache"])
def test_a_pass_apart_has_a_memory_apart(name: str):
    model, cache, _ = watched(name)
    expected = run(model)
    again = Again(key="z").inject(model)
    assert torch.equal(run(model), expected)
    cached, again.seen[:] = list(again.seen), []
    with_cache = run(model, steps=3)
    cached, again.seen[:] = list(again.seen), []
    run(model, steps=3, conditions={cache: None})
    assert torch.equal(cached[0], again.seen[0])  # of the same latents
    assert not torch.equal(with_cache, run(model, steps=3, conditions={cache: None}))


class Wider(Adapter):
    """Changes every residual block and what comes before, after and below it."""

    def edits(self, model: Any) -> Iterable[Edit]:
        edits: list[Edit] = []
        for slot in ("unet.residual", "unet.down.output", "unet.mid.output", "unet.skip.backbone"):
            edits += model.slot(slot).wrap(self._added, stage="output")
        return [
            *edits,
            *model.slot("unet.residual").before("less", lambda seat: Lambda(torch.tanh)),
            *model.slot("unet.residual").after("more", lambda seat: Lambda(torch.tanh)),
        ]

    def _added(self, inner: nn.Module, seat: Any) -> nn.Module:
        return Chain(inner, When(self.scale_key, Lambda(torch.neg), Multiply(self.scale_key)))


@pytest.mark.parametrize("key", ["a", "z"])
@pytest.mark.parametrize("name", CACHES)
def test_adapters_of_any_key_rest_with_the_places_they_edit(name: str, key: str):
    model, _, calls = watched(name)
    with Wider(key=key).on(model):
        changed = run(model)
    assert calls.full == USUAL[name]
    assert not torch.allclose(changed, run(model), atol=1e-3)


def test_a_place_without_input_returns_none_while_it_is_idle():
    x = torch.ones(2)
    assert Idle("on", True, nn.Identity())(x, context={"on": True}) is None
    assert Idle("on", False, nn.Identity())(x, context={"on": True}) is x


@pytest.mark.parametrize(
    "make", [lambda: TeaCache(threshold=0.28), lambda: FirstBlockCache(threshold=0.12)]
)
def test_each_picture_of_a_batch_decides_for_itself(make: Any):
    model = copy.deepcopy(BARE)
    calls, full = Calls(model, model.unet.mid), list[list[int]]()
    make().inject(model)
    batch = run(model, seed=[1, 2, 3], count=3, steps=10)
    for i in range(3):
        calls.clear()
        single = run(model, seed=i + 1, steps=10)
        full.append(list(calls.full))
        torch.testing.assert_close(batch[i], single[0], rtol=1e-4, atol=1e-5)
    assert len({*map(tuple, full)}) > 1  # they decide otherwise


def test_deepcache_and_t_gate_go_together():
    model, _, calls = watched("deepcache")
    TGate(key="gate", gate_step=3, sp_interval=1).inject(model)
    run(model, steps=8)
    assert calls.full == [0, 2, 3, 5, 7]  # the first call without the unguided pass is full
    assert calls.rows == [2, 2, 2, 1, 1, 1, 1, 1]
