import copy
import pickle
from dataclasses import replace

import pytest
import torch

from refiners_core.errors import GenerationError, ModelError
from refiners_core.models.samplers import DDIM, ScheduleConfig


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ("leading", (751, 501, 251, 1)),
        ("trailing", (999, 749, 499, 249)),
        ("linspace", (999, 666, 333, 0)),
    ],
)
def test_spacing_says_which_training_steps_are_visited(spacing, expected):
    assert ScheduleConfig(spacing=spacing).timesteps(4) == expected


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 30, 49, 999])
def test_visited_steps_fall_and_were_trained(spacing, steps):
    visited = ScheduleConfig(spacing=spacing).timesteps(steps)
    assert len(visited) == steps
    assert sorted(set(visited), reverse=True) == list(visited)
    assert max(visited) < 1000
    assert min(visited) >= 0


@pytest.mark.parametrize("steps", [0, -1, 1000, 5000])
def test_a_number_of_steps_that_was_not_trained_is_refused(steps):
    with pytest.raises(GenerationError, match=f"1 to 999 steps, not {steps}") as refusal:
        DDIM().with_steps(steps)
    assert refusal.value.hint == "Try steps=30."


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_what_a_network_is_taught_says_what_noise_was_added(prediction):
    schedule = ScheduleConfig(prediction=prediction)
    clean, eps = torch.randn(2, 2, 4, 3, 3)
    noisy = schedule.add_noise(clean, eps, 400)
    found = schedule.split(noisy, schedule.target(clean, eps, 400), 400)
    torch.testing.assert_close(found, (clean, eps))


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


def test_a_perfect_prediction_leads_to_the_clean_picture():
    sampler = DDIM(ScheduleConfig(is_final_clean=True)).with_steps(5)
    clean, eps = torch.randn(2, 1, 4, 2, 2)
    x = sampler.schedule.add_noise(clean, eps, sampler.timesteps[0])
    for index in range(5):
        x = sampler.step(x, eps, index)
    torch.testing.assert_close(x, clean)


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


def test_steps_are_computed_in_float32_and_given_back_as_they_came():
    x = torch.randn(1, 4, 2, 2)
    exact = DDIM().step(x, x, 3)
    half = DDIM().step(x.half(), x.half(), 3)
    assert half.dtype == torch.float16
    assert half.equal(DDIM().step(x.half().float(), x.half().float(), 3).half())
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
        ({"thresholding": True}, "thresholding = True"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr = True"),
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
