"""Caches beside the adapters of other packages."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from refiners_cache.deep import DeepCache
from refiners_cache.first_block import FirstBlockCache
from refiners_cache.gate import TGate
from refiners_cache.tea import TeaCache
from refiners_controlnet.adapter import ControlNet
from refiners_guidance.perp_neg import PerpNeg
from refiners_ipadapter.adapter import IpAdapter
from refiners_lora.adapter import Lora
from refiners_regional.shrink import DeepShrink
from torch import Tensor

from refiners_core import Adapter, Condition
from refiners_core.models.clip import ClipImageConfig
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.unet import UNetConfig
from refiners_core.testing import tiny_model

ENCODER = ClipImageConfig(
    image_size=32, patch_size=16, width=8, inner_width=16, layers=1, heads=2, projection_width=8
)
PICTURE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
CACHES: Mapping[str, Callable[[], Adapter]] = {
    "deepcache": lambda: DeepCache(key="cache", interval=2),
    "t-gate": lambda: TGate(key="cache", gate_step=1, sp_interval=1),
    "teacache": lambda: TeaCache(key="cache", threshold=9.0),
    "first-block-cache": lambda: FirstBlockCache(key="cache", threshold=9.0),
}
STEPS = 4


@pytest.fixture(scope="module")
def worn() -> tuple[LatentDiffusion, dict[str, Adapter]]:
    """Returns a model that wears an adapter of each kind."""
    model, noise = tiny_model(), torch.Generator().manual_seed(3)
    others: dict[str, Adapter] = {
        "control": ControlNet(channels=(4, 8, 8), key="control"),
        "image": IpAdapter(encoder=ENCODER, tokens=2, key="image"),
        "lora": Lora(rank=2, key="lora"),
    }
    for adapter in others.values():
        adapter.inject(model)
        with torch.no_grad():
            for weight in adapter.parameters():
                weight.copy_(torch.randn(weight.shape, generator=noise) * 0.2)
    return model, others


def latents_at(model: LatentDiffusion, others: dict[str, Adapter], **changes: Any) -> list[Tensor]:
    """Returns the latents after each step."""
    seen: list[Tensor] = []
    conditions: dict[str, Any] = {"control": PICTURE, "image": PICTURE, "lora": Condition()}
    model.generate(
        ["a cat", "a dog"],
        conditions={others[name]: value for name, value in (conditions | changes).items()},
        callback=lambda step, latents: seen.append(latents.clone()),
        **{"steps": STEPS, "guidance": 3.0, "sampler": "ddim", "seed": 7},
        **{"output": "latents", "progress": False},
    )
    return seen


@pytest.mark.parametrize("name", CACHES)
@pytest.mark.parametrize("changed", ["control", "image", "lora"])
def test_an_adapter_that_begins_acts_at_once_and_as_without_the_cache(
    name: str, changed: str, worn: tuple[LatentDiffusion, dict[str, Adapter]]
):
    model, others = worn
    late = Condition(PICTURE if changed != "lora" else None, start=0.5)
    with CACHES[name]().on(model) as cache:
        never = latents_at(model, others, **{changed: None})
        cached = latents_at(model, others, **{changed: late})
        # From the same latents, a step is that of a generation in which the cache begins later.
        apart = [
            latents_at(model, others | {"cache": cache}, **{changed: late, "cache": begun})
            for begun in (Condition(end=0.5), Condition())
        ]
    assert all(map(torch.equal, never[:2], cached[:2]))
    assert not torch.allclose(never[2], cached[2], atol=1e-4)
    assert torch.equal(apart[0][2], apart[1][2])


@pytest.mark.parametrize("name", CACHES)
def test_with_all_of_them_it_changes_later_calls_alone(
    name: str, worn: tuple[LatentDiffusion, dict[str, Adapter]]
):
    model, others = worn
    bare = latents_at(model, others)
    with CACHES[name]().on(model):
        cached = latents_at(model, others)
    assert torch.equal(cached[0], bare[0])
    assert not torch.allclose(cached[2], bare[2], atol=1e-5)
    assert all(map(torch.equal, latents_at(model, others), bare))


@pytest.mark.parametrize("name", CACHES)
def test_a_branch_with_a_text_of_its_own_does_not_renew_it(name: str):
    model = tiny_model()

    def latents(*worn: Adapter) -> Tensor:
        with ExitStack() as stack:
            for adapter in worn:
                stack.enter_context(adapter.on(model))
            return model.generate(
                ["a cat", "a dog"],
                negative_prompt="a bird",
                **{"steps": STEPS, "guidance": 3.0, "sampler": "ddim", "seed": 7},
                **{"output": "latents", "progress": False},
            )

    three = latents(PerpNeg(key="perp-neg"))
    assert not torch.equal(latents(PerpNeg(key="perp-neg"), CACHES[name]()), three)


def test_a_gate_lets_attentions_run_where_their_tokens_are_others():
    model = tiny_model()
    shrunk = DeepShrink(key="kohya-hires", block=1, until=0.5)
    with shrunk.on(model), CACHES["t-gate"]().on(model):
        made = model.generate(
            "a cat", **{"steps": STEPS, "seed": 7, "output": "latents", "progress": False}
        )
    assert made.isfinite().all()


@pytest.mark.slow
def test_compiled_blocks_keep_and_reuse():
    sizes: dict[str, Any] = {"channels": (8,), "layers": (1,), "depths": (1,), "heads": (2,)}
    model = tiny_model(unet=UNetConfig(**sizes, text_width=8, groups=4))
    options: dict[str, Any] = {
        **{"steps": 2, "guidance": 3.0, "sampler": "ddim", "seed": 7},
        **{"output": "latents", "progress": False},
    }
    with CACHES["t-gate"]().on(model):
        plain = model.generate("a cat", **options)
        model.compile(backend="eager")
        compiled = model.generate("a cat", **options)
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
