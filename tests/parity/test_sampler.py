import pytest
import torch
from diffusers import DDIMScheduler

from refiners_core.models.samplers import DDIM, ScheduleConfig


def diffusers_ddim(**changes):
    settings = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    return DDIMScheduler(**(settings | changes))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("is_final_clean", [False, True])
@pytest.mark.parametrize("betas", ["linear", "scaled_linear"])
def test_twenty_steps_equal_those_of_diffusers(prediction, spacing, is_final_clean, betas, differ):
    theirs = diffusers_ddim(
        prediction_type=prediction,
        timestep_spacing=spacing,
        set_alpha_to_one=is_final_clean,
        beta_schedule=betas,
    )
    theirs.set_timesteps(20)
    ours = DDIM(ScheduleConfig.from_json(theirs.config)).with_steps(20)
    assert list(ours.timesteps) == theirs.timesteps.tolist()
    x = y = torch.randn(2, 4, 8, 8)
    mixing = torch.randn(4, 4)

    def network(latents):
        return torch.tanh(torch.einsum("oc,nchw->nohw", mixing, latents))

    for index, timestep in enumerate(theirs.timesteps):
        x = theirs.step(network(x), timestep, x).prev_sample
        y = ours.step(y, network(y), index).latents
    assert differ(y, x) <= 1e-6


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("steps", [1, 3, 7, 20, 30, 50, 333])
def test_visited_steps_equal_those_of_diffusers(spacing, steps):
    theirs = diffusers_ddim(timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    ours = ScheduleConfig.from_json(theirs.config)
    assert list(ours.timesteps(steps)) == theirs.timesteps.tolist()


def test_training_targets_equal_those_of_diffusers(differ):
    theirs = diffusers_ddim()
    ours = ScheduleConfig.from_json(theirs.config)
    clean, noise = torch.randn(2, 3, 4, 8, 8)
    steps = torch.tensor([3, 500, 999])
    noisy = ours.add_noise(clean, noise, steps)
    assert differ(noisy, theirs.add_noise(clean, noise, steps)) <= 1e-6
    velocity = ours.velocity(clean, noise, steps)
    assert differ(velocity, theirs.get_velocity(clean, noise, steps)) <= 1e-6
