"""Reference-only and reference AdaIN, held to their formulas inside diffusers' networks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import refiners
import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor

from refiners_core import Condition
from refiners_core.models.formats.open import open_folder

PICTURE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
STEPS, GUIDANCE = 20, 5.0


class Knobs(NamedTuple):
    """The settings of one way to look at a reference; a weight of -1 turns one of the two off."""

    style_fidelity: float = 0.5
    attention_weight: float = -1.0
    norm_weight: float = -1.0
    strength: float = 1.0


class Formula:
    """Two passes of a network, of which the first writes what the second reads."""

    def __init__(self, unet: Any, knobs: Knobs) -> None:
        self.unet, self.knobs = unet, knobs
        self.bank: dict[str, Any] = {}
        self.is_writing = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        unet, plain = self.unet, dict(self.unet.attn_processors)
        blocks = [n for n, m in unet.named_modules() if isinstance(m, BasicTransformerBlock)]
        widths = {n: unet.get_submodule(n).norm1.normalized_shape[0] for n in blocks}
        ranked = sorted(blocks, key=lambda name: -widths[name])
        chosen = {
            f"{name}.attn1.processor"
            for i, name in enumerate(ranked)
            if self.knobs.attention_weight > i / len(ranked)
        }
        processors = {
            n: Looking(self, n, item) if n in chosen else item for n, item in plain.items()
        }
        unet.set_attn_processor(processors)
        handles = [layer.register_forward_hook(self.hook(name)) for name, layer in self.layers()]
        yield
        unet.set_attn_processor(plain)
        for handle in handles:
            handle.remove()

    def layers(self) -> Iterator[tuple[str, Any]]:
        """Yields the layers after which statistics are exchanged."""
        down, up = self.unet.down_blocks, self.unet.up_blocks
        weighted = [(f"down {i}", block, 2 * (1 - i / len(down))) for i, block in enumerate(down)]
        weighted += [(f"up {i}", block, 2 * i / len(up)) for i, block in enumerate(up)]
        for name, block, weight in weighted:
            if self.knobs.norm_weight >= weight:
                for i, layer in enumerate(getattr(block, "attentions", block.resnets)):
                    yield f"{name} {i}", layer
        if self.knobs.norm_weight >= 0:
            yield "mid", self.unet.mid_block

    def hook(self, name: str) -> Any:
        def exchanged(_: Any, __: Any, output: Any) -> Any:
            x = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
            mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
            if self.is_writing:
                self.bank[name] = mean, variance
                return output
            before, after = (v.clamp(min=1e-6) ** 0.5 for v in (variance, self.bank[name][1]))
            x = self.mixed(x, (x - mean) / before * after + self.bank[name][0])
            return (x,) if isinstance(output, tuple) else x

        return exchanged

    def mixed(self, plain: Tensor, changed: Tensor) -> Tensor:
        half = len(plain) // 2
        faithful = torch.cat([plain[:half], changed[half:]])
        fidelity = self.knobs.style_fidelity
        mixed = fidelity * faithful + (1 - fidelity) * changed
        return plain + self.knobs.strength * (mixed - plain)

    def __call__(self, reference: Tensor, x: Tensor, *inputs: Any, **more: Any) -> Tensor:
        self.is_writing = True
        self.unet(reference, *inputs, **more)
        self.is_writing = False
        return self.unet(x, *inputs, **more).sample


class Looking:
    """An attention processor that writes its tokens, or attends to those that were written."""

    def __init__(self, formula: Formula, name: str, plain: Any) -> None:
        self.formula, self.name, self.plain = formula, name, plain

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        x, formula = hidden_states, self.formula
        plain = self.plain(attn, x, encoder_hidden_states=x)
        if formula.is_writing:
            formula.bank[self.name] = x
            return plain
        both = torch.cat([x, formula.bank[self.name]], dim=1)
        return formula.mixed(plain, self.plain(attn, x, encoder_hidden_states=both))


@pytest.fixture(scope="module", params=["sd15_folder", "sdxl_folder"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Theirs, and ours read from the folder that theirs was saved to."""
    pipe, folder = request.getfixturevalue(request.param)
    return pipe, open_folder(folder)


def encoded(pipe: Any, prompt: str) -> tuple[Tensor, dict[str, Any]]:
    """Returns the rows of texts without and with a prompt, and what else the network reads."""
    if not hasattr(pipe, "text_encoder_2"):
        text, silent = pipe.encode_prompt(prompt, "cpu", 1, True)
        return torch.cat([silent, text]), {}
    text, silent, pooled, silent_pooled = pipe.encode_prompt(prompt)
    time_ids = torch.tensor([[32, 32, 0, 0, 32, 32]] * 2).float()
    more = {"text_embeds": torch.cat([silent_pooled, pooled]), "time_ids": time_ids}
    return torch.cat([silent, text]), {"added_cond_kwargs": more}


@torch.no_grad()
@pytest.mark.parametrize(
    "knobs",
    [
        Knobs(0.5, attention_weight=0.75),
        pytest.param(Knobs(0.3, norm_weight=2.0, strength=0.7), marks=pytest.mark.slow),
    ],
)
def test_a_whole_generation_equals_the_formula(pair: Any, knobs: Knobs, differ: Any) -> None:
    pipe, model = pair
    clean = pipe.vae.encode(2 * PICTURE - 1).latent_dist.mode() * pipe.vae.config.scaling_factor
    noise, fixed = (
        torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)) for seed in (1, 0)
    )
    text, more = encoded(pipe, "two cats")
    formula, schedule = Formula(pipe.unet, knobs), pipe.scheduler
    steps = 5 if more else STEPS  # a step of SDXL takes longer
    schedule.set_timesteps(steps)
    latents = noise * schedule.init_noise_sigma
    with formula.installed():
        for t in schedule.timesteps:
            rows, looked = (
                schedule.scale_model_input(torch.cat([x] * 2), t)
                for x in (latents, schedule.add_noise(clean, fixed, t[None]))
            )
            silent, heard = formula(looked, rows, t, text, **more).chunk(2)
            guided = silent + GUIDANCE * (heard - silent)
            latents = schedule.step(guided, t, latents).prev_sample
    name = "reference-only" if knobs.norm_weight < 0 else "reference-adain"
    options = {k: v for k, v in knobs._asdict().items() if v >= 0 and k != "strength"}
    with refiners.load_adapter(name, **options).on(model) as adapter:
        condition = {adapter: Condition(PICTURE, scale=knobs.strength)}
        arguments = {"steps": steps, "guidance": GUIDANCE, "latents": noise}
        arguments |= {"output": "latents", "progress": False}
        ours = model.generate("two cats", conditions=condition, **arguments)
        bare = model.generate("two cats", conditions={adapter: None}, **arguments)
    assert differ(ours, latents) <= 1e-4
    assert differ(bare, latents) > 1e-2
