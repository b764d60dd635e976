import json

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline

from refiners_core.errors import ModelError
from refiners_core.models import sd15

PROMPTS = ["a red circle on blue", "two cats"]


@pytest.fixture(scope="module", params=[("epsilon", "leading"), ("v_prediction", "trailing")])
def pair(request, tmp_path_factory, build_pipeline):
    """Theirs, and ours read from the folder that theirs was saved to."""
    prediction, spacing = request.param
    pipe = build_pipeline(prediction_type=prediction, timestep_spacing=spacing)
    folder = tmp_path_factory.mktemp("pipeline")
    pipe.save_pretrained(folder)
    return pipe, sd15.load_folder(folder, base="tiny")


def test_a_whole_generation_equals_that_of_diffusers(pair, differ):
    theirs, ours = pair
    noise = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = theirs(
        PROMPTS,
        negative_prompt=["dull", ""],
        num_images_per_prompt=2,
        num_inference_steps=20,
        guidance_scale=5.0,
        latents=noise,
        output_type="latent",
    ).images
    arguments = {"negative_prompt": ["dull", ""], "count": 2, "steps": 20, "guidance": 5.0}
    made = ours.generate(PROMPTS, **arguments, latents=noise, output="latents", progress=False)
    assert differ(made, expected) <= 1e-4
    assert differ(expected, noise) > 0.1  # something happened


def test_pixels_equal_those_of_diffusers(pair, differ):
    theirs, ours = pair
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = theirs(
        "x", num_inference_steps=4, guidance_scale=1.0, latents=noise, output_type="pt"
    ).images
    made = ours.generate("x", steps=4, guidance=1.0, latents=noise, output="tensor", progress=False)
    assert differ(made, expected) <= 1e-4


def test_sizes_and_schedule_are_read_from_the_folder(pair):
    theirs, ours = pair
    assert ours.size == 32
    assert ours.tokenizer.length == 32
    assert ours.facts["cross_attention_dim"] == 32
    theirs.scheduler.set_timesteps(20)
    assert list(ours.sampler.with_steps(20).timesteps) == theirs.scheduler.timesteps.tolist()


def test_a_part_that_is_missing_is_named(pair, tmp_path):
    theirs, _ = pair
    theirs.save_pretrained(tmp_path)
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"vae has no weights .* it has config.json"):
        sd15.load_folder(tmp_path)
    config = json.loads((tmp_path / "unet" / "config.json").read_text())
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config | {"act_fn": "mish"}))
    with pytest.raises(ModelError, match="act_fn = 'mish'"):
        sd15.load_folder(tmp_path)


def test_beginning_with_an_image_equals_diffusers(pair, differ):
    theirs, ours = pair
    image = torch.rand(1, 3, 32, 32)
    expected = StableDiffusionImg2ImgPipeline(**theirs.components, requires_safety_checker=False)(
        "x",
        image=ours.encode(
            image
        ),  # diffusers samples latents with random noise unless it is given latents
        strength=0.6,
        num_inference_steps=20,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    ).images
    arguments = {"image": image, "strength": 0.6, "steps": 20, "guidance": 5.0, "seed": 7}
    made = ours.generate("x", **arguments, output="latents", progress=False)
    assert differ(made, expected) <= 1e-4
