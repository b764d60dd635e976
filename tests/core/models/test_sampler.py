import copy
import pickle
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from refiners_core.errors import GenerationError, ModelError
from refiners_core.models.samplers import (
    DDIM,
    DDPM,
    DEIS,
    DPM2M,
    DPM2MSDE,
    DPM3MSDE,
    LCM,
    PLMS,
    PNDM,
    SAMPLERS,
    TCD,
    Euler,
    EulerAncestral,
    ScheduleConfig,
    sampler_from_json,
)


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ("leading", (751, 501, 251, 1)),
        ("trailing", (999, 749, 499, 249)),
        ("linspace", (999, 666, 333, 0)),
    ],
)
def test_spacing_determines_the_visited_training_steps(spacing, expected):
    assert ScheduleConfig(spacing=spacing).timesteps(4) == expected


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 30, 49, 999])
def test_visited_steps_descend_within_the_training_steps(spacing, steps):
    visited = ScheduleConfig(spacing=spacing).timesteps(steps)
    assert len(visited) == steps
    assert sorted(set(visited), reverse=True) == list(visited)
    assert max(visited) < 1000
    assert min(visited) >= 0


@pytest.mark.parametrize("steps", [0, -1, 1000, 5000])
def test_a_number_of_steps_out_of_range_is_refused(steps):
    with pytest.raises(GenerationError, match=f"1 to 999 steps, not {steps}") as refusal:
        DDIM().with_steps(steps)
    assert refusal.value.hint == "Try steps=30."


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_the_training_target_implies_the_added_noise(prediction):
    schedule = ScheduleConfig(prediction=prediction)
    clean, eps = torch.randn(2, 2, 4, 3, 3)
    noisy = schedule.add_noise(clean, eps, 400)
    result = schedule.split(noisy, schedule.target(clean, eps, 400), 400)
    torch.testing.assert_close(result, (clean, eps))


def test_each_row_may_have_its_own_training_step():
    schedule = ScheduleConfig()
    clean, eps = torch.randn(2, 3, 4, 2, 2)
    steps = torch.tensor([0, 500, 999])
    together = schedule.add_noise(clean, eps, steps)
    alone = [
        schedule.add_noise(clean[i : i + 1], eps[i : i + 1], int(t)) for i, t in enumerate(steps)
    ]
    assert together.equal(torch.cat(alone))
    velocity = schedule.velocity(clean, eps, steps)
    a = schedule.alphas[steps].sqrt().reshape(3, 1, 1, 1)
    torch.testing.assert_close(a * together - (1 - a**2).sqrt() * velocity, clean)


def test_a_perfect_prediction_leads_to_the_clean_latents():
    sampler = DDIM(ScheduleConfig(is_final_clean=True)).with_steps(5)
    clean, eps = torch.randn(2, 1, 4, 2, 2)
    x = sampler.schedule.add_noise(clean, eps, sampler.timesteps[0])
    for index in range(5):
        x = sampler.step(x, eps, index).latents
    torch.testing.assert_close(x, clean)


@pytest.mark.parametrize("kind", SAMPLERS.values())
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing", "karras"])
def test_every_sampler_ends_at_a_constant_prediction(kind, spacing):
    """It ends at a prediction that is the same at each step, whatever noise it adds."""
    sampler = kind(ScheduleConfig(prediction="x0", spacing=spacing, is_final_clean=True))
    sampler = sampler.with_steps(9)
    clean, x = torch.randn(2, 1, 4, 2, 2)
    past = ()
    for index in range(len(sampler.timesteps)):
        stepped = sampler.step(x, clean, index, past=past, noise=torch.randn_like(x))
        x, past = stepped.latents, stepped.past
    # These end at training step 0, with a little noise.
    torch.testing.assert_close(x, clean, atol=0.15 if kind in (TCD, DEIS) else 1e-5, rtol=0)


@pytest.mark.parametrize("kind", [EulerAncestral, DPM2MSDE, DPM3MSDE, DDPM, LCM, TCD])
def test_noise_that_is_added_keeps_the_variance(kind):
    """Every step keeps the variance of latents that are standard normal noise."""
    sampler = kind(ScheduleConfig(prediction="x0", spacing="trailing")).with_steps(9)
    level = sampler.path[3]
    clean, eps, noise = torch.randn(3, 1, 4, 100, 100)
    x = level.add_noise(clean, eps)
    after = sampler.step(x, clean, 3, noise=noise).latents
    after_level = sampler.path[4]
    kept = after - after_level.signal * clean
    assert kept.std().item() == pytest.approx(after_level.noise, abs=0.02)


def test_zero_snr_ends_in_pure_noise():
    schedule = ScheduleConfig(prediction="v", has_zero_snr=True)
    assert schedule.level(999).signal == 0
    assert schedule.level(0).signal == pytest.approx(ScheduleConfig().level(0).signal)
    for changes in ({"prediction": "eps"}, {"spacing": "karras"}):
        with pytest.raises(ModelError, match="with zero terminal SNR"):
            replace(schedule, **changes)


def test_karras_levels_are_denser_at_little_noise():
    path = Euler(ScheduleConfig(spacing="karras")).with_steps(10).path
    sigmas = [level.sigma for level in path]
    gaps = [a - b for a, b in pairwise(sigmas)]
    assert gaps == sorted(gaps, reverse=True)
    assert sigmas[0] == pytest.approx(ScheduleConfig().level(999).sigma)
    assert sigmas[-2:] == pytest.approx([ScheduleConfig().level(0).sigma, 0])


@pytest.mark.parametrize(("kind", "name"), [(DDIM, "eta"), (TCD, "gamma")])
def test_a_share_of_fresh_noise_is_a_share(kind, name):
    with pytest.raises(GenerationError, match=f"{name} is in 0...1, not 1.5"):
        kind(**{name: 1.5})
    assert not kind(**{name: 0.0}).is_stochastic
    assert kind(**{name: 0.5}).is_stochastic


def test_a_distilled_model_refuses_more_steps_than_it_was_distilled_at():
    with pytest.raises(GenerationError, match="LCM takes 1 to 50 steps, not 51"):
        LCM().with_steps(51)


def test_strength_leaves_out_the_first_steps():
    sampler = DDIM().with_steps(10)
    assert sampler.with_strength(0.3).timesteps == sampler.timesteps[7:]
    assert sampler.with_strength(1.0) == sampler
    assert sampler.with_strength(0.3).with_steps(10) == sampler
    with pytest.raises(GenerationError, match="leaves none"):
        sampler.with_strength(0.05)


def test_a_sampler_is_a_value():
    sampler = DDIM().with_steps(7)
    assert sampler.timesteps
    assert sampler == replace(DDIM(), steps=7) == copy.deepcopy(sampler)
    assert pickle.loads(pickle.dumps(sampler)) == sampler
    assert hash(sampler) == hash(DDIM(steps=7))
    with pytest.raises(AttributeError):
        sampler.steps = 8


def test_steps_are_computed_in_float32_and_keep_the_dtype():
    x = torch.randn(1, 4, 2, 2)
    exact = DDIM().step(x, x, 3).latents
    half = DDIM().step(x.half(), x.half(), 3).latents
    assert half.dtype == torch.float16
    assert half.equal(DDIM().step(x.half().float(), x.half().float(), 3).latents.half())
    assert (half - exact).abs().max() < 1e-2


@pytest.mark.parametrize(
    ("published", "message"),
    [
        (
            {"beta_schedule": "squaredcos_cap_v2"},
            "betas is one of linear, scaled_linear; got 'squa",
        ),
        ({"prediction_type": "flow"}, "prediction is one of eps, v, x0; got 'flow'"),
        ({"timestep_spacing": "odd"}, "spacing is one of"),
        ({"final_sigmas_type": "one"}, "final_sigmas_type = 'one'; wanted: 'zero' or 'sigma_min'"),
        (
            {"use_karras_sigmas": True, "use_beta_sigmas": True},
            "use_beta_sigmas = True; wanted: False beside use_karras_sigmas",
        ),
        (
            {
                "_class_name": "UniPCMultistepScheduler",
                "use_karras_sigmas": True,
                "final_sigmas_type": "sigma_min",
            },
            "the last step would have no length",
        ),
        ({"rescale_betas_zero_snr": True}, "with zero terminal SNR a network cannot predict noise"),
        ({"trained_betas": [0.1]}, "trained_betas"),
        ({"beta_start": 2.0}, "0 < beta_start <= beta_end < 1"),
        ({"num_train_timesteps": "many"}, "num_train_timesteps = 'many'"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler"),
    ],
)
def test_a_published_schedule_that_is_not_known_is_refused(published, message):
    with pytest.raises(ModelError, match=message):
        ScheduleConfig.from_json(published)


def test_the_schedule_of_stable_diffusion_is_the_default():
    published = {
        "_class_name": "PNDMScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
        "clip_sample": False,
    }
    assert ScheduleConfig.from_json(published) == ScheduleConfig()


@pytest.mark.parametrize(
    ("published", "sampler"),
    [
        ({"_class_name": "DDIMScheduler"}, DDIM),
        ({"_class_name": "PNDMScheduler"}, PNDM),
        ({"_class_name": "PNDMScheduler", "skip_prk_steps": True}, PLMS),
        ({"_class_name": "EulerDiscreteScheduler"}, Euler),
        ({"_class_name": "EulerAncestralDiscreteScheduler"}, EulerAncestral),
        ({"_class_name": "DPMSolverMultistepScheduler"}, DPM2M),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"},
            DPM2MSDE,
        ),
        ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}, DDIM),
        ({"_class_name": "UniPCMultistepScheduler", "disable_corrector": [0]}, DDIM),
        ({"_class_name": "LCMScheduler", "original_inference_steps": 25}, LCM),
        ({"_class_name": "TCDScheduler"}, TCD),
    ],
)
def test_a_published_schedule_names_its_sampler(published, sampler):
    result = sampler_from_json(published)
    assert type(result) is sampler
    schedule = ScheduleConfig.from_json(published)
    if sampler is DDIM and "DDIM" not in published["_class_name"]:  # in the place of another
        schedule = replace(schedule, spacing="linspace")
    assert result.schedule == schedule
    if sampler is LCM:
        assert result.distilled_steps == 25
