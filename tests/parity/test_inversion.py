"""The way back from a picture to noise, held to diffusers' inverse scheduler."""

from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from refiners_core.models.formats.open import open_folder
from refiners_core.models.samplers import sampler_from_json

PICTURE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
@pytest.mark.parametrize(
    ("prediction", "guidance"),
    [("epsilon", 2.0), pytest.param("v_prediction", 1.0, marks=pytest.mark.slow)],
)
def test_the_way_back_equals_the_peers(
    sd15_folder: Any, differ: Any, prediction: str, guidance: float
) -> None:
    pipe, folder = sd15_folder
    model = open_folder(folder)
    schedule = DDIMScheduler.from_config(
        pipe.scheduler.config, prediction_type=prediction, timestep_spacing="leading"
    )
    inverse = DDIMInverseScheduler.from_config(schedule.config)
    inverse.set_timesteps(20)
    latents = pipe.vae.encode(2 * PICTURE - 1).latent_dist.mode() * pipe.vae.config.scaling_factor
    text, silent = pipe.encode_prompt("two cats", "cpu", 1, True)
    path = [latents]
    for t in inverse.timesteps:
        uncond, cond = pipe.unet(
            torch.cat([latents] * 2), t, torch.cat([silent, text])
        ).sample.chunk(2)
        latents = inverse.step(uncond + guidance * (cond - uncond), t, latents).prev_sample
        path.append(latents)
    sampler = sampler_from_json({**schedule.config, "_class_name": "DDIMScheduler"})
    options = {"steps": 20, "sampler": sampler, "guidance": guidance, "progress": False}
    ours = model.invert(PICTURE, "two cats", **options)
    assert differ(ours, torch.cat(path[::-1])) <= 1e-4
    assert differ(ours[0], ours[-1]) > 0.1
