"""Twenty steps of each sampler with a made-up network, and the timesteps that the network reads."""

import math
from itertools import pairwise

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_utils import AysSchedules

from refiners_core.errors import GenerationError
from refiners_core.models.samplers import (
    DDIM,
    DPM2M,
    DPM2MSDE,
    DPM3MSDE,
    TCD,
    Euler,
    Heun,
    Restart,
    ScheduleConfig,
    named_sampler,
    sampler_from_json,
)

from .sampler_peer import NOISE, STEPS, built, draws, network, ours, theirs

SDE = {"algorithm_type": "sde-dpmsolver++"}
SETTINGS = {
    "DDIM": {"clip_sample": False, "set_alpha_to_one": False},
    "DDPM": {"clip_sample": False},
    "PNDM": {},
    "PLMS": {"skip_prk_steps": True},
    "EulerDiscrete": {},
    "EulerAncestralDiscrete": {},
    "HeunDiscrete": {},
    "LMSDiscrete": {},
    "KDPM2Discrete": {},
    "KDPM2AncestralDiscrete": {},
    "DPMSolverSDE": {},
    "DPMSolverMultistep": {},
    "DPMSolverMultistep, sde": SDE,
    "DEISMultistep": {},
    "UniPCMultistep": {},
    "LCM": {},
    "TCD": {},
}
"""Each class of diffusers, and the settings that make it the one of ours."""
DISTILLED = ("LCM", "TCD")
SIGMAS = [name for name in SETTINGS if name[0] in "EHLKU" and name != "LCM"]
SIGMAS = [name for name in SIGMAS if "EulerA" not in name] + [
    name for name in SETTINGS if name.startswith(("DPM", "DEIS"))
]
"""The classes that have spacings of sigma."""
NO_SAMPLE = ("PNDM", "PLMS", "EulerAncestral", "KDPM2", "DPMSolverSDE")
"""The classes that cannot read a network which predicts clean latents."""
SNR = ("DDIM", "DDPM", "Euler", "DPMSolverMultistep", "UniPC")
"""The classes that read `rescale_betas_zero_snr`."""


def scheduler(name, **published):
    kind = {"PLMS": "PNDM"}.get(name, name.partition(",")[0])
    scheduler = getattr(diffusers, f"{kind}Scheduler")
    return built(scheduler, scheduler, **{**NOISE, **SETTINGS[name], **published})


def check(name, published, differ, monkeypatch, start=0, steps=STEPS):
    """Compares a scheduler with the sampler that its own configuration names."""
    peer = scheduler(name, **published)
    sampler = sampler_from_json(dict(peer.config) | {"_class_name": type(peer).__name__})
    x, timesteps = theirs(peer, monkeypatch, start, steps)
    y, visited = ours(sampler.with_steps(steps), start)
    assert visited == pytest.approx(timesteps, abs=2e-3)
    assert differ(y, x) <= 2e-5


def spaced(spacing):
    if spacing in ("leading", "linspace", "trailing"):
        return {"timestep_spacing": spacing, "steps_offset": int(spacing == "leading")}
    return {f"use_{spacing}_sigmas": True}


CASES = [
    (name, prediction, spacing)
    for name in SETTINGS
    for prediction in ("epsilon", "v_prediction", "sample")
    for spacing in ("leading", "linspace", "trailing", "karras", "exponential", "beta")
    if not (prediction == "sample" and name.startswith(NO_SAMPLE))
    and not (spacing in ("karras", "exponential", "beta") and name not in SIGMAS)
    and not (name in DISTILLED and spacing != "leading")
]


@pytest.mark.parametrize(("name", "prediction", "spacing"), CASES)
def test_twenty_steps_equal_those_of_diffusers(name, prediction, spacing, differ, monkeypatch):
    published = {"prediction_type": prediction}
    check(name, published | spaced(spacing), differ, monkeypatch)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in DISTILLED])
def test_other_numbers_of_steps_equal_those_of_diffusers(name, differ, monkeypatch):
    for spacing, steps in (("leading", 7), ("trailing", 7), ("linspace", 7), ("linspace", 30)):
        check(name, spaced(spacing), differ, monkeypatch, steps=steps)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "PNDM"])
def test_skipped_steps_equal_those_of_diffusers(name, differ, monkeypatch):
    """A Runge-Kutta step of diffusers that an image enters in its middle takes it for noise."""
    for spacing in ("leading", "trailing"):
        published = {} if name in DISTILLED else spaced(spacing)
        check(name, published, differ, monkeypatch, start=8)
    check(name, {"prediction_type": "v_prediction"}, differ, monkeypatch, start=1)


@pytest.mark.parametrize("name", SIGMAS)
def test_spacings_of_sigma_lie_between_the_ends_of_another(name, differ, monkeypatch):
    check(name, spaced("leading") | spaced("karras"), differ, monkeypatch)
    check(name, spaced("trailing") | spaced("beta"), differ, monkeypatch, start=8)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name.startswith(SNR)])
def test_zero_snr_equals_that_of_diffusers(name, differ, monkeypatch):
    published = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    for spacing in ("leading", "linspace", "trailing"):
        check(name, published | spaced(spacing), differ, monkeypatch)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("EulerDiscrete", {}),
        ("EulerDiscrete", {"use_karras_sigmas": True}),
        ("UniPCMultistep", {}),
        ("UniPCMultistep", {"solver_type": "bh1"}),
        ("UniPCMultistep", {"solver_type": "bh1", "solver_order": 3}),
        ("DPMSolverMultistep", {}),
        ("DPMSolverMultistep", {"euler_at_final": True}),
        ("DPMSolverMultistep", {"lower_order_final": False}),
        ("DPMSolverMultistep, sde", {"use_exponential_sigmas": True}),
    ],
)
def test_steps_that_end_with_noise_equal_those_of_diffusers(name, published, differ, monkeypatch):
    for steps in (7, STEPS):
        check(
            name, published | {"final_sigmas_type": "sigma_min"}, differ, monkeypatch, steps=steps
        )


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("name", ["DEISMultistep", "UniPCMultistep"])
def test_other_orders_equal_those_of_diffusers(name, order, differ, monkeypatch):
    for steps in (7, STEPS):
        check(name, {"solver_order": order}, differ, monkeypatch, steps=steps)


@pytest.mark.parametrize("name", ["DDIM", "DDPM", "LCM", "TCD", "HeunDiscrete"])
def test_clipped_latents_equal_those_of_diffusers(name, differ, monkeypatch):
    check(name, {"clip_sample": True, "clip_sample_range": 0.7}, differ, monkeypatch)


@pytest.mark.parametrize(
    "name", ["DDIM", "DDPM", "LCM", "DPMSolverMultistep", "DEISMultistep", "UniPCMultistep"]
)
def test_thresholds_of_latents_equal_those_of_diffusers(name, differ, monkeypatch):
    published = {"thresholding": True, "dynamic_thresholding_ratio": 0.8}
    check(name, published | {"sample_max_value": 1.5}, differ, monkeypatch)
    check(name, published | {"sample_max_value": 0.8}, differ, monkeypatch)


@pytest.mark.parametrize(
    "published",
    [{"variance_type": f"fixed_{size}"} for size in ("small", "small_log", "large")],
)
def test_the_variance_of_ddpm_equals_that_of_diffusers(published, differ, monkeypatch):
    check("DDPM", published, differ, monkeypatch)


@pytest.mark.parametrize("name", ["DDIM", "PNDM", "PLMS"])
@pytest.mark.parametrize("is_final_clean", [False, True])
def test_the_end_of_the_last_step_equals_that_of_diffusers(
    name, is_final_clean, differ, monkeypatch
):
    check(name, {"set_alpha_to_one": is_final_clean}, differ, monkeypatch)
    check(name, {"set_alpha_to_one": is_final_clean, "steps_offset": 1}, differ, monkeypatch)


def test_stochastic_samplers_with_a_share_of_noise_equal_those_of_diffusers(differ, monkeypatch):
    peer = scheduler("DDIM", timestep_spacing="trailing")
    x, _ = theirs(peer, monkeypatch, eta=0.7)
    schedule = ScheduleConfig.from_json(peer.config)
    assert differ(ours(DDIM(schedule, eta=0.7).with_steps(STEPS))[0], x) <= 2e-5
    x, _ = theirs(scheduler("TCD"), monkeypatch, eta=0.6)
    assert differ(ours(TCD(schedule, gamma=0.6).with_steps(STEPS))[0], x) <= 2e-5


# --- explicit lists -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["EulerDiscrete", "HeunDiscrete", "DPMSolverMultistep", "DDPM", "LCM", "TCD"]
)
def test_explicit_timesteps_equal_those_of_diffusers(name, differ, monkeypatch):
    for timesteps in (AysSchedules["StableDiffusionTimesteps"], [999, 749, 499, 249]):
        peer = scheduler(name)
        x, visited = theirs(peer, monkeypatch, timesteps=timesteps)
        sampler = named_sampler(f"{name}Scheduler", peer.config).with_timesteps(timesteps)
        y, ours_visited = ours(sampler)
        assert sampler.steps == len(timesteps)
        assert ours_visited == visited
        assert differ(y, x) <= 2e-5


def test_explicit_sigmas_equal_those_of_diffusers(differ, monkeypatch):
    for sigmas in (AysSchedules["StableDiffusionSigmas"], [10.0, 3.0, 0.5, 0.1]):
        peer = scheduler("EulerDiscrete")
        x, visited = theirs(peer, monkeypatch, sigmas=sigmas)
        sampler = Euler(ScheduleConfig.from_json(peer.config)).with_sigmas(sigmas)
        y, ours_visited = ours(sampler)
        assert ours_visited == pytest.approx(visited, abs=2e-3)
        assert differ(y, x) <= 2e-5


# --- names --------------------------------------------------------------------------------------

FILES = {
    "as SD 1.5": {
        "_class_name": "PNDMScheduler",
        **NOISE,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "clip_sample": False,
    },
    "as SDXL": {
        "_class_name": "EulerDiscreteScheduler",
        **NOISE,
        "clip_sample": False,
        "interpolation_type": "linear",
        "sample_max_value": 1.0,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "use_karras_sigmas": False,
    },
    "karras": {
        "_class_name": "DPMSolverMultistepScheduler",
        **NOISE,
        "timestep_spacing": "trailing",
        "use_karras_sigmas": True,
        "lower_order_final": True,
    },
    "end": {
        "_class_name": "EulerDiscreteScheduler",
        **NOISE,
        "final_sigmas_type": "sigma_min",
        "set_alpha_to_one": False,
    },
    "third order": {
        "_class_name": "DEISMultistepScheduler",
        **NOISE,
        "solver_order": 3,
        "solver_type": "logrho",
        "algorithm_type": "deis",
        "thresholding": True,
    },
    "few words": {"_class_name": "EulerAncestralDiscreteScheduler", **NOISE},
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in ("PLMS",)])
def test_a_class_by_name_equals_the_one_that_is_made_from_the_file(name, file, differ, monkeypatch):
    kind = f"{name.partition(',')[0]}Scheduler"
    if (name.startswith("DPMSolverMultistep"), file) == (True, "third order"):
        with pytest.raises(GenerationError, match="with the settings that this model"):
            named_sampler(kind, FILES[file])
        return
    first = getattr(diffusers, FILES[file]["_class_name"]).from_config(FILES[file])
    scheduler = getattr(diffusers, kind)
    x, timesteps = theirs(built(scheduler, scheduler.from_config, first.config), monkeypatch)
    sampler = named_sampler(kind, FILES[file])
    assert (
        named_sampler(kind, first.config) == sampler
    )  # which has all defaults of the file's class
    y, visited = ours(sampler.with_steps(STEPS))
    assert visited == pytest.approx(timesteps, abs=2e-3)
    assert differ(y, x) <= 5e-5


def test_a_class_by_name_keeps_the_algorithm_of_the_file():
    file = FILES["karras"] | SDE
    assert type(named_sampler("DPMSolverMultistepScheduler", file)) is DPM2MSDE
    assert type(named_sampler("dpm++-2m", file)) is DPM2M


# --- against straight lines -----------------------------------------------------------------------


def denoised_by(network_of, x, sigma, timestep):
    """Returns the clean latents, given latents whose variance explodes."""
    return x - sigma * network_of(x / (1 + sigma**2) ** 0.5, timestep)


def test_dpm_3m_sde_equals_k_diffusion(differ):
    """`sample_dpmpp_3m_sde` in a straight line, for `x = x0 + sigma eps`."""
    sampler = DPM3MSDE(ScheduleConfig(spacing="karras")).with_steps(STEPS)
    noise, _, *drawn = draws()
    x, past, steps = noise / sampler.path[0].signal, [], []
    for i, (level, after) in enumerate(pairwise(sampler.path)):
        x0 = denoised_by(network, x, level.sigma, level.timestep)
        if after.sigma == 0:
            x = x0
            break
        h = math.log(level.sigma / after.sigma)
        x = math.exp(-2 * h) * x - math.expm1(-2 * h) * x0
        phi_2 = math.expm1(-2 * h) / (2 * h) + 1
        if len(past) == 1:
            x = x + phi_2 * (x0 - past[0]) * (h / steps[0])
        elif past:
            r0, r1 = steps[0] / h, steps[1] / h
            first, second = (x0 - past[0]) / r0, (past[0] - past[1]) / r1
            x = x + phi_2 * (first + (first - second) * r0 / (r0 + r1))
            x = x - (phi_2 / (2 * h) - 0.5) * (first - second) / (r0 + r1)
        x = x + drawn[i] * after.sigma * math.sqrt(-math.expm1(-2 * h))
        past, steps = [x0, *past][:2], [h, *steps][:2]
    assert differ(ours(sampler)[0], x) <= 2e-5


@pytest.mark.parametrize("steps", [12, 20, 36])
def test_restart_equals_heun_that_goes_back(steps, differ):
    """`restart_sampler` of A1111 in a straight line, for `x = x0 + sigma eps`."""
    sampler = Restart(ScheduleConfig()).with_steps(steps)
    trained = sampler.schedule.trained
    length, times = (steps // 4, 2) if steps >= 36 else (9, 1) if steps >= 20 else (0, 0)

    def karras(count, low, high):
        line = torch.linspace(0, 1, count, dtype=torch.float64)
        ends = low ** (1 / 7), high ** (1 / 7)
        return ((ends[1] + line * (ends[0] - ends[1])) ** 7).tolist()

    plain = Heun(ScheduleConfig()).with_steps(steps).levels
    sigmas = [level.sigma for level in plain]
    if times:
        sigmas = [*karras(steps - length * times, sigmas[-2], sigmas[0]), 0.0]
    way = [*pairwise(sigmas)]
    if times:
        low = min(range(len(sigmas)), key=lambda i: abs(sigmas[i] - 0.1))
        high = min(range(len(sigmas)), key=lambda i: abs(sigmas[i] - 2.0))
        again = [*pairwise(karras(length + 1, sigmas[low], sigmas[high]))]
        way[low:low] = again * times
    assert sampler.step_numbers[-1] + 1 == len(way) == steps

    noise, _, *drawn = draws()
    left = iter(drawn)
    x, last = noise * sigmas[0], sigmas[0]
    for sigma, after in way:
        if sigma > last * 1.0001:
            x = x + next(left) * (sigma**2 - last**2) ** 0.5
        slope = (x - denoised_by(network, x, sigma, trained.timestep(sigma))) / sigma
        reached = x + slope * (after - sigma)
        if after:
            end = (reached - denoised_by(network, reached, after, trained.timestep(after))) / after
            reached = x + (slope + end) / 2 * (after - sigma)
        x, last = reached, after
    assert differ(ours(sampler)[0], x) <= 2e-5


def test_sgm_uniform_equals_the_levels_of_comfyui(differ, monkeypatch):
    """Equal steps of the timestep from the last training step to the first, without its end."""
    timesteps = [999 * (STEPS - i) / STEPS for i in range(STEPS)]
    logs = ((1 - ScheduleConfig().alphas) / ScheduleConfig().alphas).sqrt().log().numpy()
    sigmas = np.exp(np.interp(timesteps, np.arange(1000), logs)).tolist()
    x, visited = theirs(scheduler("EulerDiscrete"), monkeypatch, sigmas=[*sigmas, 0.0])
    y, ours_visited = ours(named_sampler("euler sgm_uniform").with_steps(STEPS))
    assert ours_visited == pytest.approx(visited, abs=2e-3)
    assert differ(y, x) <= 2e-5
