"""Each cache is held to its method, computed by hand on the layers of a bare model."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from refiners_cache.calls import quadratic_calls
from refiners_cache.deep import DeepCache
from refiners_cache.first_block import FirstBlockCache
from refiners_cache.gate import TGate
from refiners_cache.tea import TeaCache
from torch import Tensor

from refiners_core import Context, select
from refiners_core.errors import ConditionError
from refiners_core.layers import CrossAttention, SelfAttention
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.unet import SkipRead, SkipWrite, UNetConfig
from refiners_core.testing import tiny_model

SIZES: dict[str, Any] = {
    **{"channels": (8, 16), "layers": (2, 1), "depths": (1, 1), "heads": (2, 2)},
    **{"text_width": 8, "groups": 4},
}
BARE = tiny_model(unet=UNetConfig(**SIZES))
STEPS, GUIDANCE = 10, 3.0


def generated(model: LatentDiffusion) -> Tensor:
    return model.generate(
        "a red circle",
        **{"negative_prompt": "blue", "steps": STEPS, "guidance": GUIDANCE, "seed": 7},
        **{"sampler": "ddim", "output": "latents", "progress": False},
    )


class Hand:
    """The loop of a generation, and its UNet in pieces."""

    def __init__(self) -> None:
        self.model = copy.deepcopy(BARE)
        self.unet = self.model.unet
        self.seen: list[tuple[Tensor, Any]] = []
        handle = self.unet.register_forward_pre_hook(self._record, with_kwargs=True)
        generated(self.model)
        handle.remove()

    def _record(self, layer: Any, inputs: tuple[Tensor], kwargs: dict[str, Context]) -> None:
        context = kwargs["context"]
        self.seen.append(
            (inputs[0], dict(zip(context.keys(), map(context.get, context.keys()), strict=True)))
        )

    def loop(self, predict: Callable[[int, Tensor, Context], Tensor]) -> Tensor:
        x = self.seen[0][0].chunk(2)[0]
        for i, (_, values) in enumerate(self.seen):
            out = predict(i, torch.cat([x, x]), Context(values))
            if len(out) == 2:
                uncond, cond = out.chunk(2)
                out = uncond + GUIDANCE * (cond - uncond)
            x = values["sampler"].step(x, out, i).latents
        return x

    def begun(self, rows: Tensor, context: Context) -> Tensor:
        self.unet.time(rows, context=context)
        return self.unet.write(self.unet.conv_in(rows), context=context)

    def ended(self, x: Tensor) -> Tensor:
        return self.unet.conv_out(self.unet.act(self.unet.norm_out(x)))

    def through(self, layers: Sequence[Any], x: Tensor, context: Context) -> Tensor:
        for layer in layers:
            x = layer(x, context=context) if hasattr(layer, "run") else layer(x)
        return x


def deep_by_hand(branch: int, full: Callable[[int], bool]) -> Tensor:
    hand, kept = Hand(), dict[str, Tensor]()
    down, up = list(hand.unet.down[0]), list(hand.unet.up[-1])
    written = [i for i, layer in enumerate(down) if isinstance(layer, SkipWrite)]
    shallow = down[: written[branch - 1] + 1] if branch else []
    read = [i for i, layer in enumerate(up) if isinstance(layer, SkipRead)][::-1][branch]
    up[read].register_forward_pre_hook(lambda _, inputs: kept.update(deep=inputs[0]))

    def predict(i: int, rows: Tensor, context: Context) -> Tensor:
        if full(i):
            return hand.unet(rows, context=context)
        hand.through(shallow, hand.begun(rows, context), context)
        return hand.ended(hand.through(up[read:], kept["deep"], context))

    return hand.loop(predict)


@pytest.mark.parametrize("branch", [0, 1, 2])
def test_deepcache_at_equal_intervals(branch: int):
    expected = deep_by_hand(branch, lambda i: i % 3 == 0)
    with DeepCache(branch=branch).on(model := copy.deepcopy(BARE)):
        torch.testing.assert_close(generated(model), expected, rtol=1e-5, atol=1e-5)


def published_calls(total: int, count: int, center: int, power: float) -> set[int]:
    """Returns the full calls of the authors' pipeline, by complex tensors."""
    begin, end = (torch.tensor(n, dtype=torch.complex128) for n in (-center, total - center))
    line = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    root = begin ** (1 / power) + (end ** (1 / power) - begin ** (1 / power)) * line
    return {0, *((root**power).real.int().unique()[1:-1] + center).tolist()}


def test_deepcache_around_a_center():
    calls = quadratic_calls(50, 5, 15, 1.4)  # the authors' example
    assert calls == published_calls(50, 10, 15, 1.4)
    assert len(calls) == 10
    near = [min(abs(i - 15) for i in calls if i != j) for j in calls]
    assert min(near) <= 2  # dense around the center
    few = quadratic_calls(STEPS, 3, 4, 1.4)
    assert few == published_calls(STEPS, 4, 4, 1.4)
    expected = deep_by_hand(0, lambda i: i in few)
    with DeepCache(center=4).on(model := copy.deepcopy(BARE)):
        torch.testing.assert_close(generated(model), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ConditionError, match="10 cannot be spread around call 5"):
        quadratic_calls(10, 2, 5, 1.4)
    with DeepCache(center=10).on(model), pytest.raises(ConditionError, match="beyond the 10 calls"):
        generated(model)


def published_act(step: int, gate: int, interval: int, later: int, warm_up: int) -> str:
    """Returns what self-attention does at a step in the authors' scheduler."""
    if step < gate - 1:
        if step < warm_up:
            return "run"
        return "keep" if step == warm_up or step % interval == 0 else "reuse"
    if step == gate - 1:
        return "share"
    return "keep" if step % later == 0 else "reuse"


@pytest.mark.parametrize(
    ("gate", "interval", "later", "warm_up"),
    [(9, 3, 1, 2), (5, 2, 3, 1), (1, 1, 2, 0)],
)
def test_t_gate(gate: int, interval: int, later: int, warm_up: int):
    hand, acts, kept = Hand(), dict[type, str](), dict[Any, Tensor]()

    def attention(layer: Any, inputs: Any, output: Tensor) -> Tensor:
        act = acts[type(layer)]
        if act == "reuse":
            return kept[layer]
        if act == "share":
            kept[layer] = output.mean(0, keepdim=True)
        elif act == "keep":
            kept[layer] = output
        return output

    for seat in select(hand.model).of(CrossAttention, SelfAttention):
        seat.layer.register_forward_hook(attention)

    def predict(i: int, rows: Tensor, context: Context) -> Tensor:
        acts[SelfAttention] = published_act(i, gate, interval, later, warm_up)
        acts[CrossAttention] = "run" if i < gate - 1 else "share" if i == gate - 1 else "reuse"
        if i >= gate:
            rows, context["text"] = rows[1:], context["text"][1:]
        return hand.unet(rows, context=context)

    expected = hand.loop(predict)
    cache = TGate(gate_step=gate, sp_interval=interval, fi_interval=later, warm_up=warm_up)
    with cache.on(model := copy.deepcopy(BARE)):
        torch.testing.assert_close(generated(model), expected, rtol=1e-5, atol=1e-5)


def relative(x: Tensor, before: Tensor) -> float:
    return ((x - before).abs().mean() / before.abs().mean()).item()


def test_teacache():
    hand, full = Hand(), list[int]()
    body, total, kept = hand.unet.down[0].resnet_0.body, 0.0, dict[str, Tensor]()
    hand.unet.up.register_forward_hook(lambda _, inputs, output: kept.update(up=output))
    rescale = (0.5, 1.5, 0.02)

    def predict(i: int, rows: Tensor, context: Context) -> Tensor:
        nonlocal total
        x = hand.begun(rows, context)
        moved = body.shift(body.conv_1(body.act_1(body.norm_1(x))), context=context)[:1]
        if 0 < i < STEPS - 1:
            change = relative(moved, kept["moved"])
            total += rescale[0] * change**2 + rescale[1] * change + rescale[2]
        kept["moved"] = moved
        if 0 < i < STEPS - 1 and total < 0.5:
            return hand.ended(x + kept["added"])
        total = 0.0
        full.append(i)
        out = hand.unet(rows, context=context)
        kept["added"] = kept["up"] - x
        return out

    expected = hand.loop(predict)
    assert 3 < len(full) < STEPS - 2  # some calls are skipped, and some in the middle are not
    with TeaCache(threshold=0.5, rescale=rescale).on(model := copy.deepcopy(BARE)):
        torch.testing.assert_close(generated(model), expected, rtol=1e-5, atol=1e-5)


def test_first_block_cache():
    hand, full, kept = Hand(), list[int](), dict[str, Tensor]()
    hand.unet.up.register_forward_hook(lambda _, inputs, output: kept.update(up=output))
    first = [hand.unet.down[0].resnet_0, hand.unet.down[0].transformer_0]

    def predict(i: int, rows: Tensor, context: Context) -> Tensor:
        x = hand.begun(rows, context)
        begun = hand.through(first, x, context)
        if full and relative((begun - x)[:1], kept["first"]) < 0.12:
            return hand.ended(begun + kept["added"])
        full.append(i)
        kept["first"] = (begun - x)[:1]
        out = hand.unet(rows, context=context)
        kept["added"] = kept["up"] - begun
        return out

    expected = hand.loop(predict)
    assert 2 < len(full) < STEPS - 2
    with FirstBlockCache(threshold=0.12).on(model := copy.deepcopy(BARE)):
        torch.testing.assert_close(generated(model), expected, rtol=1e-5, atol=1e-5)
