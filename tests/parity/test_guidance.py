"""Guidance and FreeU, held to diffusers' guiders and pipelines, and to the papers.

Predictions are those of a tiny network in a generation; each step is computed again by a function
that is written from the paper, or by diffusers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import refiners
import torch
from diffusers import StableDiffusionPAGPipeline
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    AutoGuidance,
    ClassifierFreeZeroStarGuidance,
    PerturbedAttentionGuidance,
    SmoothedEnergyGuidance,
    TangentialClassifierFreeGuidance,
)
from diffusers.guiders.guider_utils import rescale_noise_cfg
from diffusers.hooks.smoothed_energy_guidance_utils import _gaussian_blur_2d
from torch import Tensor

from refiners_core import Adapter, Chain, Context, Layer
from refiners_core.models.diffusion import by_branch
from refiners_core.models.formats.open import open_folder
from refiners_core.models.formats.pipeline import from_pipeline
from refiners_core.testing import tiny_model

from .pipelines import sd15_pipeline

G = 4.0
OPTIONS: dict[str, Any] = {
    **{"steps": 4, "guidance": G, "sampler": "ddim", "seed": 3, "negative_prompt": "blue"},
    **{"output": "latents", "progress": False},
}


class Step(NamedTuple):
    """One step: the latents, the predictions by branch, their combination, and the facts."""

    latents: Tensor
    passes: dict[str, Tensor]
    guided: Tensor
    context: Context

    @property
    def c(self) -> Tensor:
        return self.passes["cond"]

    @property
    def u(self) -> Tensor:
        return self.passes["uncond"]

    def clean(self, v: Tensor) -> Tensor:
        """The clean latents of a prediction of the velocity (arXiv:2202.00512)."""
        level = self.context["sampler"].path[self.context["step"]]
        return level.signal * self.latents - level.noise * v

    def noise(self, v: Tensor) -> Tensor:
        level = self.context["sampler"].path[self.context["step"]]
        return level.signal * v + level.noise * self.latents


class Keep(Layer):
    """Appends its input and the context to a list."""

    def __init__(self, notes: list[Any]) -> None:
        super().__init__()
        self.notes = notes

    def run(self, context: Context, *inputs: Any) -> Any:
        self.notes.append((inputs[0].clone(), context["branches"], context))
        return inputs[0]


class Spy(Adapter):
    """Notes what guidance reads and what it returns."""

    def __init__(self) -> None:
        super().__init__(key="spy")
        self.predictions: list[Any] = []
        self.guided: list[Any] = []

    def edits(self, model: Any) -> Any:
        read, made = Keep(self.predictions), Keep(self.guided)
        return (
            *model.slot("denoise.predict").wrap(lambda inner, _: Chain(inner, read)),
            *model.slot("denoise.step").wrap(lambda inner, _: Chain(made, inner), stage="inputs"),
        )

    def steps(self) -> list[Step]:
        return [
            Step(context["latents"], by_branch(names, rows), made, context)
            for (rows, names, _), (made, _, context) in zip(
                self.predictions, self.guided, strict=True
            )
        ]


def steps_with(name: str, **options: Any) -> tuple[list[Step], Tensor]:
    """Returns the steps of a generation with an adapter, and its result."""
    model, spy = tiny_model(), Spy()
    generation = {
        key: options.pop(key) for key in ("guidance", "negative_prompt") if key in options
    }
    refiners.load_adapter(name, model, **options)
    spy.inject(model)
    result = model.generate(["a cat", "two dogs"], **{**OPTIONS, **generation})
    return spy.steps(), result


def check(steps: list[Step], expected: Callable[[Step], Tensor]) -> None:
    changes: list[float] = []
    for step in steps:
        wanted, plain = expected(step), step.u + G * (step.c - step.u)
        assert (step.guided - wanted).norm() <= 1e-5 * wanted.norm()
        changes.append(float((step.guided - plain).norm() / plain.norm()))
    assert max(changes) > 5e-3


def dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).view(-1, 1, 1, 1)


# --- diffusers' guiders ------------------------------------------------------------------------


def test_cfg_zero_star_is_that_of_diffusers():
    steps, _ = steps_with("cfg-zero-star", zero_steps=1)
    guider = ClassifierFreeZeroStarGuidance(guidance_scale=G, zero_init_steps=1)

    def guided(step: Step) -> Tensor:
        guider.set_state(step.context["step"], len(steps), step.context["timestep"])
        return guider.forward(step.c, step.u).pred

    assert not steps[0].guided.any()
    assert not guided(steps[0]).any()
    check(steps[1:], guided)


def test_tcfg_is_that_of_diffusers():
    guider = TangentialClassifierFreeGuidance(guidance_scale=G)
    check(steps_with("tcfg")[0], lambda step: guider.forward(step.c, step.u).pred)


@pytest.mark.parametrize("threshold", [0.0, 3.0])
def test_apg_is_that_of_diffusers(threshold: float):
    guider = AdaptiveProjectedGuidance(
        guidance_scale=G - 1,
        adaptive_projected_guidance_momentum=-0.5,
        adaptive_projected_guidance_rescale=threshold,
        eta=0.3,
        use_original_formulation=True,
    )
    guider.momentum_buffer = type(guider.momentum_buffer or _buffer())(-0.5)
    steps, _ = steps_with("apg", eta=0.3, threshold=threshold, space="prediction")
    check(steps, lambda step: guider.forward(step.c, step.u).pred)


def _buffer() -> Any:
    from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer

    return MomentumBuffer(-0.5)


def test_apg_projects_clean_latents():
    before: list[Tensor] = []

    def guided(step: Step) -> Tensor:
        cond, update = step.clean(step.c), step.clean(step.c) - step.clean(step.u)
        update = update - 0.5 * before[-1] if before else update
        before.append(update)
        update = update * (2.0 / dot(update, update).sqrt()).clamp(max=1)
        clean = cond + (G - 1) * (update - dot(update, cond) / dot(cond, cond) * cond)
        level = step.context["sampler"].path[step.context["step"]]
        return (level.signal * step.latents - clean) / level.noise

    check(steps_with("apg", threshold=2.0)[0], guided)


@pytest.mark.parametrize("name", ["pag", "seg"])
@pytest.mark.parametrize("guidance", [G, 1.0])
def test_a_worse_pass_is_combined_as_in_diffusers(name: str, guidance: float):
    kind = {"pag": PerturbedAttentionGuidance, "seg": SmoothedEnergyGuidance}[name]
    long = {"pag": "perturbed_guidance", "seg": "seg_guidance"}[name]
    numbers = {f"{long}_scale": 2.0, f"{long}_start": 0.0, f"{long}_stop": 1.0, f"{long}_layers": 0}
    is_guided = guidance > 1
    guider = kind(guidance_scale=guidance, use_original_formulation=not is_guided, **numbers)
    guider._enabled = True
    if not is_guided:
        guider._is_cfg_enabled = lambda: False
    options = {"guidance": guidance, "negative_prompt": "blue" if is_guided else ""}
    steps, _ = steps_with(name, strength=2.0, **options)
    for step in steps:
        *others, branch = step.passes
        assert others == [*(("uncond",) if is_guided else ()), "cond"]
        wanted = guider.forward(step.c, step.passes.get("uncond"), step.passes[branch]).pred
        assert (step.guided - wanted).norm() <= 1e-5 * wanted.norm()
        assert (step.passes[branch] - step.c).norm() > 1e-3 * step.c.norm()


def test_autoguidance_is_that_of_diffusers():
    weak, model, spy = tiny_model(), tiny_model(), Spy()
    with torch.no_grad():
        weak.unet.mid.apply(lambda layer: [w.mul_(0.5) for w in layer.parameters(recurse=False)])
    network = weak.unet
    refiners.load_adapter("autoguidance", model, weak=weak, strength=1.5)
    spy.inject(model)
    model.generate("a cat", **{**OPTIONS, "guidance": 1.0, "negative_prompt": ""})
    guider = AutoGuidance(guidance_scale=2.5, auto_guidance_layers=[0], dropout=1.0)
    for step in spy.steps():
        text = step.context["conditions"]["text"]["cond"]
        context = {"timestep": step.context["timestep"], "text": text}
        with torch.no_grad():
            weaker = network(step.latents, context=context)
        wanted = guider.forward(step.c, weaker).pred
        assert (step.guided - wanted).norm() <= 1e-5 * wanted.norm()
        assert (weaker - step.c).norm() > 1e-3 * step.c.norm()


@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_rescaling_is_that_of_diffusers(strength: float):
    steps, _ = steps_with("cfg-rescale", strength=strength)
    check(steps, lambda s: rescale_noise_cfg(s.u + G * (s.c - s.u), s.c, strength))


# --- the papers ----------------------------------------------------------------------------------


def test_perp_neg_leaves_the_perpendicular_part():
    def guided(step: Step) -> Tensor:
        empty = step.passes[[*step.passes][-1]]
        towards, away = step.c - empty, step.u - empty
        perpendicular = away - dot(away, towards) / dot(towards, towards) * towards
        return empty + G * (towards - 0.8 * perpendicular)

    steps, _ = steps_with("perp-neg", strength=0.8)
    check(steps, guided)
    plain, spy = tiny_model(), Spy()
    spy.inject(plain)
    plain.generate(["a cat", "two dogs"], **{**OPTIONS, "negative_prompt": ""})
    assert torch.allclose(spy.steps()[0].u, [*steps[0].passes.values()][-1], atol=1e-5)


@pytest.mark.parametrize("per_channel", [True, False])
def test_dynamic_thresholding_keeps_the_range_of_weaker_guidance(per_channel: bool):
    def cut(strong: Tensor, weak: Tensor) -> Tensor:
        centred = strong - strong.mean()
        size = (weak - weak.mean()).abs().max()
        most = torch.maximum(size, torch.quantile(centred.abs(), 0.95))
        return centred.clamp(-most, most) / most * size + strong.mean()

    def guided(step: Step) -> Tensor:
        strong, weak = (step.clean(step.u + g * (step.c - step.u)) for g in (G, 1.5))
        pairs = zip(strong, weak, strict=True)
        rows: list[Tensor]
        if per_channel:
            rows = [torch.stack([cut(*ab) for ab in zip(*p, strict=True)]) for p in pairs]
        else:
            rows = [cut(*pair) for pair in pairs]
        level = step.context["sampler"].path[step.context["step"]]
        return (level.signal * step.latents - torch.stack(rows)) / level.noise

    options = {"mimic": 1.5, "percentile": 0.95, "per_channel": per_channel}
    check(steps_with("dynamic-thresholding", **options)[0], guided)


def test_fresca_scales_frequencies_of_the_difference():
    def guided(step: Step) -> Tensor:
        waves = torch.fft.fftshift(torch.fft.fftn(step.c - step.u, dim=(-2, -1)), dim=(-2, -1))
        mask = torch.full((8, 8), 1.6)
        mask[2:6, 2:6] = 0.9
        waves = torch.fft.ifftshift(waves * mask, dim=(-2, -1))
        return step.u + G * torch.fft.ifftn(waves, dim=(-2, -1)).real

    check(steps_with("fresca", low=0.9, high=1.6, cutoff=2)[0], guided)


def test_cfg_plus_plus_renews_noise_from_the_unguided_prediction():
    steps, result = steps_with("cfg-plus-plus", strength=0.6)
    for index, step in enumerate(steps):
        after = steps[index + 1].latents if index + 1 < len(steps) else result
        level = step.context["sampler"].path[index + 1]
        guided = step.u + 0.6 * (step.c - step.u)
        wanted = level.signal * step.clean(guided) + level.noise * step.noise(step.u)
        assert (step.guided - guided).norm() <= 1e-5 * guided.norm()
        assert (after - wanted).norm() <= 1e-5 * wanted.norm()


def test_sag_leads_away_from_latents_that_are_blurred_where_the_network_looks():
    model, spy = tiny_model(), Spy()
    attends = [s.layer for s in model.slot("unet.self_attention.attend") if ".mid." in s.path]
    seen: list[tuple[Tensor, Tensor]] = []
    attends[0].register_forward_pre_hook(lambda _, x: seen.append((x[0].clone(), x[1].clone())))
    refiners.load_adapter("sag", model, strength=0.9)
    spy.inject(model)
    model.generate(["a cat", "two dogs"], **OPTIONS)
    model.eject_all()
    for step, (q, k) in zip(spy.steps(), seen[::2], strict=True):
        heads = attends[0].heads
        maps = torch.stack(
            [
                (a @ b.T / a.shape[1] ** 0.5).softmax(1)
                for a, b in zip(q[:2].chunk(heads, 2), k[:2].chunk(heads, 2), strict=True)
                for a, b in zip(a, b, strict=True)
            ]
        ).view(heads, 2, 16, 16)
        looked = maps.mean(0).sum(1) > 1.0
        mask = looked.float().view(2, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
        clean, x = step.clean(step.u), torch.arange(-4.0, 5.0)
        line = torch.exp(-0.5 * x**2) / torch.exp(-0.5 * x**2).sum()
        padded = torch.nn.functional.pad(clean, (4, 4, 4, 4), mode="reflect")
        windows = padded.unfold(2, 9, 1).unfold(3, 9, 1)
        blurred = torch.einsum("rchwij,i,j->rchw", windows, line, line)
        level = step.context["sampler"].path[step.context["step"]]
        latents = level.signal * (clean * (1 - mask) + blurred * mask)
        latents = latents + level.noise * step.noise(step.u)
        text = step.context["conditions"]["text"]["uncond"].expand(2, -1, -1)
        context = {"timestep": step.context["timestep"], "text": text}
        with torch.no_grad():
            degraded = model.unet(latents, context=context)
        wanted = step.u + G * (step.c - step.u) + 0.9 * (step.u - degraded)
        assert (step.guided - wanted).norm() <= 1e-5 * wanted.norm()
        assert 0 < mask.mean() < 1


@pytest.mark.parametrize("sigma", [0.4, 5.0, float("inf")])
def test_seg_blurs_as_diffusers_does(sigma: float):
    from refiners_guidance.smoothed_energy import BlurQueries

    queries = torch.randn(3, 64, 8)
    context = Context({"branches": ("uncond", "cond", "seg"), "latents": torch.zeros(1, 4, 16, 16)})
    made = BlurQueries("seg", sigma)(queries, queries, context=context)[0]
    size = 3 if sigma == float("inf") else int(-(-6 * sigma // 1)) | 1
    # Its comparison with the threshold is the wrong way round, so that 0 asks for the Gaussian.
    threshold = sigma if sigma == float("inf") else 0.0
    wanted = _gaussian_blur_2d(queries[2:].clone(), size, sigma, threshold)
    assert torch.allclose(made[2:], wanted, atol=1e-5)
    assert torch.equal(made[:2], queries[:2])


# --- diffusers' pipelines ------------------------------------------------------------------------

NOISE = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
THEIRS: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": G, "output_type": "latent"}
PAIR = ["a red circle", "two cats"]


@pytest.mark.parametrize("layers", ["mid", "up.1"])
def test_pag_is_that_of_its_pipeline(sd15_folder: Any, layers: str):
    pipe, folder = sd15_folder
    ours = open_folder(folder)
    named = {"mid": "mid", "up.1": "up_blocks.1"}[layers]
    theirs = StableDiffusionPAGPipeline(
        **pipe.components, pag_applied_layers=named, requires_safety_checker=False
    )
    theirs.set_progress_bar_config(disable=True)
    processors = dict(pipe.unet.attn_processors)
    wanted = theirs(PAIR, latents=NOISE, negative_prompt=["blue"] * 2, pag_scale=3.0, **THEIRS)
    pipe.unet.set_attn_processor(processors)
    options = {**OPTIONS, "latents": NOISE, "seed": None}
    bare = ours.generate(PAIR, **options)
    refiners.load_adapter("pag", ours, layers=[layers])
    made = ours.generate(PAIR, **options)
    assert (made - wanted.images).norm() <= 1e-4 * made.norm()
    assert (made - bare).norm() > 2e-3 * made.norm()


@pytest.mark.parametrize("version", [1, 2])
def test_freeu_is_that_of_diffusers(version: int, monkeypatch: pytest.MonkeyPatch):
    from diffusers.models.unets import unet_2d_blocks

    def second(resolution_idx: int, hidden_states: Tensor, res_hidden_states: Tensor, **f: Any):
        """Version 2 of the authors' code in place of version 1, which diffusers has."""
        plain = hidden_states.clone()
        hidden, skip = apply(resolution_idx, hidden_states, res_hidden_states, **f)
        if resolution_idx < 2:
            rows = []
            for row in plain:
                mean = row.mean(0)
                share = (mean - mean.min()) / (mean.max() - mean.min())
                half = len(row) // 2
                gain = (f[f"b{resolution_idx + 1}"] - 1) * share + 1
                rows.append(torch.cat([row[:half] * gain, row[half:]]))
            hidden = torch.stack(rows)
        return hidden, skip

    apply = unet_2d_blocks.apply_freeu
    if version == 2:
        monkeypatch.setattr(unet_2d_blocks, "apply_freeu", second)
    pipe = sd15_pipeline()
    ours = from_pipeline(pipe)
    pipe.set_progress_bar_config(disable=True)
    factors = {"s1": 0.8, "s2": 0.3, "b1": 1.3, "b2": 1.4}
    pipe.enable_freeu(**factors)
    wanted = pipe(PAIR, latents=NOISE, negative_prompt=["blue"] * 2, **THEIRS).images
    pipe.disable_freeu()
    options = {**OPTIONS, "latents": NOISE, "seed": None}
    bare = ours.generate(PAIR, **options)
    refiners.load_adapter("freeu", ours, version=version, stages="diffusers", **factors)
    made = ours.generate(PAIR, **options)
    assert (made - wanted).norm() <= 1e-4 * made.norm()
    assert (made - bare).norm() > 1e-2 * made.norm()
