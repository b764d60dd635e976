"""The way back, and what begins from it, are those of straight-line code."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from refiners_inversion.adapter import DdimInversion
from refiners_inversion.regular import Regularisation
from refiners_inversion.renoise import ReNoise, RepeatedInverse, Repeats
from refiners_stylealigned.adapter import StyleAligned
from torch import Tensor
from torch.nn.functional import avg_pool2d

from refiners_core import Condition
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.samplers import DDIM, ScheduleConfig
from refiners_core.testing import tiny_model

PICTURE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
OPTIONS: dict[str, Any] = {"output": "latents", "progress": False, "sampler": "ddim"}
BARE = tiny_model(
    schedule=ScheduleConfig(spacing="trailing")
)  # it predicts noise, as the authors' code requires


def small() -> LatentDiffusion:
    return copy.deepcopy(BARE)


def network(model: LatentDiffusion, prompt: str) -> Callable[[Tensor, float], Tensor]:
    text = model.read([prompt], {})["text"]

    def predict(x: Tensor, timestep: float) -> Tensor:
        context = {"timestep": torch.tensor(timestep), "text": text}
        return model.unet(x, context=context)

    return predict


def alphas(model: LatentDiffusion, steps: int) -> list[tuple[int, float]]:
    """Returns the timestep and the product of alphas of each level, the cleanest first."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    products = (1 - betas).cumprod(0)
    levels = DDIM(model.sampler.schedule).with_steps(steps).levels
    return [(int(at.timestep), float(products[int(at.timestep)])) for at in levels[::-1]]


def back(x: Tensor, noise: Tensor, before: float, after: float) -> Tensor:
    """The inverse of DDIM's step, as the authors write it."""
    clean = (x - (1 - before) ** 0.5 * noise) / before**0.5
    return after**0.5 * clean + (1 - after) ** 0.5 * noise


@torch.no_grad()
@pytest.mark.parametrize(
    ("repeats", "early", "average", "early_average"),
    [
        (1, 5, (8, 10), (0, 5)),
        (4, 1, (1, 4), (0, 1)),
        (0, 0, (1, 1), (1, 1)),
    ],
)
def test_the_way_back_is_repeated_and_averaged(repeats, early, average, early_average):
    model, predict = small(), network(BARE, "a cat")
    (_, before), *levels = alphas(model, 6)
    x = model.encode(PICTURE)
    path = [x]
    for timestep, after in levels:
        is_early = timestep < 250
        count, span = (min(repeats, early), early_average) if is_early else (repeats, average)
        guess, counted = x, list[Tensor]()
        for i in range(count + 1):
            noise = predict(guess, timestep)
            counted += [noise] if span[0] <= i < span[1] else []
            guess = back(x, noise, before, after)
        x = back(x, torch.stack(counted).mean(0), before, after) if counted else guess
        path.append(x)
        before = after
    forward = DDIM(model.sampler.schedule).with_steps(6)
    wanted = Repeats(repeats, early, average, early_average)
    walk = replace(RepeatedInverse.of(forward), repeats=wanted)
    made = model.invert(PICTURE, "a cat", sampler=walk, steps=6, progress=False)
    expected = torch.cat(path[::-1])
    assert made.shape == expected.shape
    assert (made - expected).abs().max() <= 1e-5 * expected.abs().max()
    if repeats == 0:
        torch.testing.assert_close(
            model.invert(PICTURE, "a cat", sampler=forward, steps=6, progress=False), made
        )
    assert walk.with_steps(4).repeats == walk.with_strength(0.5).repeats == walk.repeats


def test_regularisation_follows_the_gradient_of_the_correlations():
    noise = torch.randn(1, 3, 20, 18, generator=torch.Generator().manual_seed(2)).cumsum(-1) / 4
    source, expected = torch.Generator().manual_seed(0), noise.double()
    for _ in range(4 * 5):
        variable = expected.clone().requires_grad_(True)
        loss: Any = 0.0
        for channel in range(3):
            x = variable[:, channel : channel + 1]
            while True:
                shift = int(torch.randint(0, x.shape[2] // 2, (1,), generator=source))
                for dim in (2, 3):
                    loss = loss + (x * x.roll(shift, dim)).mean() ** 2
                if x.shape[2] <= 8:
                    break
                x = avg_pool2d(x, 2)
        loss.backward()
        assert variable.grad is not None
        expected = expected - 20.0 * variable.grad / 5
    made = Regularisation(20.0)(noise)
    assert (made - noise).abs().max() > 0.01
    torch.testing.assert_close(made, expected.float(), rtol=1e-4, atol=1e-5)
    assert Regularisation(0.0)(noise) is noise


@pytest.mark.parametrize("sampler", ["ddim", "dpm++-2m"])
def test_a_generation_begins_from_the_noise_of_the_picture(sampler: str):
    model = small()
    path = model.invert(PICTURE, "a cat", steps=4, sampler=sampler, progress=False)
    options = {**OPTIONS, "sampler": sampler, "steps": 4, "guidance": 4.0}
    plain = model.generate("a dog", latents=path[:1], **options)
    adapter = DdimInversion(key="inversion").inject(model)
    value = {"picture": PICTURE, "prompt": "a cat"}
    made = model.generate("a dog", conditions={adapter: value}, seed=3, **options)
    assert torch.equal(made, plain)


def test_at_a_later_start_it_begins_at_that_level_without_a_past():
    model, seen = small(), list[Tensor]()
    path = model.invert(PICTURE, "", steps=4, sampler="dpm++-2m", progress=False)
    adapter = DdimInversion(key="inversion").inject(model)
    options = {**OPTIONS, "sampler": "dpm++-2m", "steps": 4}
    late = {adapter: Condition(PICTURE, start=0.5)}
    with_seed = [model.generate("a dog", conditions=late, seed=s, **options) for s in (1, 2)]
    assert torch.equal(*with_seed)
    model.generate(
        "a dog",
        image=PICTURE,
        strength=0.5,
        conditions={adapter: PICTURE},
        callback=lambda step, x: seen.append(x.clone()),
        seed=1,
        **options,
    )
    torch.testing.assert_close(seen[-1], with_seed[0], rtol=1e-4, atol=1e-5)
    assert len(path) == 5


def test_a_scale_below_one_adds_noise_of_the_seed():
    model = small()
    adapter = DdimInversion(key="inversion").inject(model)
    options = {"steps": 2, "progress": False, "conditions": {adapter: None}}
    inverted = model.invert(PICTURE, "", sampler="ddim", **options)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    mixed = 0.6 * inverted[:1] + 0.8 * noise
    plain = model.generate("a", latents=mixed, steps=2, conditions={adapter: None}, **OPTIONS)
    condition = {adapter: Condition(PICTURE, scale=0.6)}
    made = model.generate("a", latents=noise, steps=2, conditions=condition, **OPTIONS)
    torch.testing.assert_close(made, plain, rtol=1e-5, atol=1e-5)


def test_the_style_of_a_picture_goes_with_pictures_to_edit():
    """StyleAligned pins the first picture; the others begin from the noise of theirs."""
    model = small()
    others = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(6))
    style = StyleAligned(key="style").inject(model)
    edit = ReNoise(key="renoise").inject(model)
    pictures = torch.cat([PICTURE, others[:1]])
    options = {**OPTIONS, "steps": 3, "seed": 1}
    prompts = ["a cat", "a dog"]
    made = model.generate(prompts, conditions={style: PICTURE, edit: pictures}, **options)
    alone = model.generate(prompts, conditions={style: PICTURE, edit: None}, **options)
    torch.testing.assert_close(made[0], alone[0])
    torch.testing.assert_close(made[0], model.encode(PICTURE)[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(made[1], alone[1], atol=1e-2)
