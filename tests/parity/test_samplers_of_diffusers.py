"""Twenty steps of each sampler with a made-up network, and the timesteps that the network reads."""

from dataclasses import replace

import diffusers
import pytest
import torch

from refiners_core.models.samplers import (
    DDIM,
    DPM2M,
    DPM2MSDE,
    LCM,
    TCD,
    Euler,
    EulerAncestral,
    ScheduleConfig,
)

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PAIRS = {
    "ddim": (DDIM(), "DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "ddim, noisy": (
        DDIM(eta=0.7),
        "DDIMScheduler",
        {"clip_sample": False, "set_alpha_to_one": False},
    ),
    "euler": (Euler(), "EulerDiscreteScheduler", {}),
    "euler ancestral": (EulerAncestral(), "EulerAncestralDiscreteScheduler", {}),
    "2m": (DPM2M(), "DPMSolverMultistepScheduler", {}),
    "2m sde": (
        DPM2MSDE(),
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++"},
    ),
    "lcm": (LCM(), "LCMScheduler", {}),
    "tcd": (TCD(), "TCDScheduler", {}),
}
HAS_KARRAS = ("euler", "2m", "2m sde")
DISTILLED = ("lcm", "tcd")


def draws(count):
    return [torch.randn(2, 4, 8, 8) for _ in range(count)]


def network(latents, timestep):
    mixing = torch.linspace(-1, 1, 16).reshape(4, 4)
    return torch.tanh(torch.einsum("oc,nchw->nohw", mixing, latents) + float(timestep) / 1000)


def theirs_of(peer, noise, drawn, start, clean, monkeypatch):
    """Runs a peer's steps from `start` on; returns the latents and the timesteps."""
    module = __import__(type(peer).__module__, fromlist=["randn_tensor"])
    left = iter(drawn)
    monkeypatch.setattr(module, "randn_tensor", lambda *args, **more: next(left), raising=False)
    timesteps = peer.timesteps[start:]
    if start:
        if not isinstance(peer, diffusers.DDIMScheduler):  # which does not count steps
            peer.set_begin_index(start)
        x = peer.add_noise(clean, noise, timesteps[:1])
    else:
        x = noise * peer.init_noise_sigma
    more = {"eta": 0.7} if isinstance(peer, diffusers.DDIMScheduler) and drawn else {}
    for t in timesteps:
        says = network(peer.scale_model_input(x, t), t)
        x = peer.step(says, t, x, **more).prev_sample
    return x, [float(t) for t in timesteps]


def ours_of(sampler, noise, drawn, start, clean):
    run = sampler.with_strength(1 - start / sampler.steps)
    y = run.path[0].add_noise(clean, noise) if start else run.begin(noise)
    past = ()
    for index, timestep in enumerate(run.timesteps):
        stepped = run.step(y, network(y, timestep), index, past=past, noise=drawn[index])
        y, past = stepped.latents, (stepped.clean,)
    return y, list(run.timesteps)


def check(name, published, differ, monkeypatch, start=0):
    sampler, kind, settings = PAIRS[name]
    peer = getattr(diffusers, kind)(**NOISE, **settings, **published)
    peer.set_timesteps(20)
    schedule = ScheduleConfig.from_json(peer.config)
    ours = replace(sampler, schedule=schedule).with_steps(20)
    noise, clean = draws(2)
    drawn = draws(20)
    needed = drawn if ours.is_stochastic else []
    x, expected = theirs_of(peer, noise, needed, start, clean, monkeypatch)
    y, visited = ours_of(ours, noise, drawn, start, clean)
    assert visited == pytest.approx(expected, abs=2e-3)
    assert differ(y, x) <= 2e-5


# Euler of diffusers has no `sample` prediction, its DDIM does not hit the steps of `linspace`, and
# the steps of consistency models do not depend on the spacing.
CASES = [
    (name, prediction, spacing)
    for name in PAIRS
    for prediction in ("epsilon", "v_prediction", "sample")
    for spacing in ("leading", "linspace", "trailing")
    if not (name.startswith("euler") and prediction == "sample")
    and not (name.startswith("ddim") and spacing == "linspace")
    and not (name in DISTILLED and spacing != "leading")
]


@pytest.mark.parametrize(("name", "prediction", "spacing"), CASES)
def test_twenty_steps_equal_those_of_diffusers(name, prediction, spacing, differ, monkeypatch):
    published = {"prediction_type": prediction}
    if name not in DISTILLED:
        published |= {"timestep_spacing": spacing, "steps_offset": int(spacing == "leading")}
    check(name, published, differ, monkeypatch)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", HAS_KARRAS)
def test_karras_levels_equal_those_of_diffusers(name, prediction, differ, monkeypatch):
    published = {"use_karras_sigmas": True, "timestep_spacing": "linspace"}
    check(name, published | {"prediction_type": prediction}, differ, monkeypatch)


@pytest.mark.parametrize("name", [name for name in PAIRS if name not in DISTILLED])
def test_zero_snr_equals_that_of_diffusers(name, differ, monkeypatch):
    published = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    check(name, published | {"prediction_type": "v_prediction"}, differ, monkeypatch)


@pytest.mark.parametrize("name", PAIRS)
def test_skipped_steps_equal_those_of_diffusers(name, differ, monkeypatch):
    published = {} if name in DISTILLED else {"timestep_spacing": "trailing"}
    check(name, published, differ, monkeypatch, start=8)
