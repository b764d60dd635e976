"""Whole generations of twenty steps by the names of samplers, on a folder as that of SD 1.5."""

import json

import diffusers
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from refiners_core.models import sd15
from refiners_core.sampler_name import NAMES

from .pipelines import TEXT, tokenizer
from .sampler_peer import NOISE, BrownianPath, built

SCHEDULER = {
    "_class_name": "PNDMScheduler",
    **NOISE,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
}
"""The `scheduler_config.json` of Stable Diffusion 1.5: it does not state a spacing."""
OTHERS = ("dpm++-3m-sde", "restart", "plms")
"""Samplers that diffusers lacks, and one that is the sampler of the folder."""
BY_NAME = [entry for entry in NAMES if entry.name not in OTHERS]
STEPS = 20


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A pipeline with networks of one block, and ours from the folder that it was saved to."""
    torch.manual_seed(0)
    pipe = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(**TEXT | {"num_hidden_layers": 1}, hidden_size=16)
        ),
        tokenizer=tokenizer("<|endoftext|>"),
        unet=diffusers.UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8,),
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            layers_per_block=1,
            attention_head_dim=2,
            norm_num_groups=4,
            cross_attention_dim=16,
        ),
        scheduler=diffusers.PNDMScheduler.from_config(SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    for name, weight in pipe.unet.named_parameters():
        if name.endswith("weight") and weight.ndim > 1:
            weight.data *= 1.5
    folder = tmp_path_factory.mktemp("sd15")
    pipe.save_pretrained(folder)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    return pipe, sd15.load_folder(folder, base="tiny")


def peer_of(pipe, kind, pipeline, **settings):
    """Returns a pipeline with the scheduler that diffusers makes of the published one."""
    scheduler = getattr(diffusers, kind)
    made = built(scheduler, scheduler.from_config, pipe.scheduler.config, **settings)
    peer = pipeline(**pipe.components | {"scheduler": made}, requires_safety_checker=False)
    peer.set_progress_bar_config(disable=True)
    return peer


def generator():
    return torch.Generator().manual_seed(7)


def made(model, name, **more):
    arguments = {"steps": STEPS, "guidance": 3.0, "seed": 7, "sampler": name}
    return model.generate("a red circle", **arguments | more, output="latents", progress=False)


ARGUMENTS = {
    "prompt": "a red circle",
    "num_inference_steps": STEPS,
    "guidance_scale": 3.0,
    "output_type": "latent",
}


@pytest.mark.parametrize("entry", BY_NAME, ids=lambda entry: entry.name)
def test_a_sampler_by_name_equals_the_one_that_diffusers_makes(entry, pair, differ, monkeypatch):
    pipe, ours = pair
    # DPM++ SDE draws from a Brownian tree there: here of the noise that we draw.
    drawn = generator()
    first = torch.randn(1, 4, 8, 8, generator=drawn)
    path = BrownianPath(torch.randn(1, 4, 8, 8, generator=drawn) for _ in range(2 * STEPS))
    kind = {"dpm++-2m-sde": "sde-dpmsolver++"}.get(entry.name)
    peer = peer_of(pipe, entry.scheduler, diffusers.StableDiffusionPipeline)
    if kind is not None:
        peer.scheduler = type(peer.scheduler).from_config(
            pipe.scheduler.config, algorithm_type=kind
        )
    if entry.name == "dpm++-sde":
        set_timesteps = peer.scheduler.set_timesteps

        def with_path(*args, **kwargs):
            set_timesteps(*args, **kwargs)
            peer.scheduler.noise_sampler = path

        monkeypatch.setattr(peer.scheduler, "set_timesteps", with_path)
    eta = {"eta": 0.3} if entry.name == "tcd" else {}
    expected = peer(**ARGUMENTS, **eta, generator=generator()).images
    assert differ(expected, first) > 0.1  # something happened
    assert differ(made(ours, entry.name), expected) <= 1e-4


@pytest.mark.parametrize(
    "name", ["pndm", "lms", "heun", "dpm2-ancestral", "unipc", "deis", "ddpm", "euler"]
)
def test_a_sampler_by_name_begins_with_an_image_as_diffusers_does(name, pair, differ):
    pipe, ours = pair
    (entry,) = [entry for entry in NAMES if entry.name == name]
    peer = peer_of(pipe, entry.scheduler, diffusers.StableDiffusionImg2ImgPipeline)
    image = torch.rand(1, 3, 8, 8, generator=generator())
    clean = ours.encode(image)
    expected = peer(**ARGUMENTS, image=clean, strength=0.6, generator=generator()).images
    assert differ(made(ours, name, image=image, strength=0.6), expected) <= 1e-4


def test_the_sampler_of_the_folder_is_its_own(pair, differ):
    pipe, ours = pair
    assert type(ours.sampler).__name__ == "PLMS"
    expected = pipe(**ARGUMENTS, generator=generator()).images
    assert differ(made(ours, None), expected) <= 1e-4
    assert differ(made(ours, "plms"), expected) <= 1e-4


@pytest.mark.parametrize("lists", [{"timesteps": [999, 749, 499, 249]}, {"sigmas": [9.0, 2.0, 0]}])
def test_explicit_lists_are_those_of_diffusers(lists, pair, differ):
    pipe, ours = pair
    peer = peer_of(pipe, "EulerDiscreteScheduler", diffusers.StableDiffusionPipeline)
    arguments = {key: value for key, value in ARGUMENTS.items() if key != "num_inference_steps"}
    expected = peer(**arguments, **lists, generator=generator()).images
    assert differ(made(ours, "euler", steps=None, **lists), expected) <= 1e-4
