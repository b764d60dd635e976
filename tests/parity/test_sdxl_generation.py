"""Whole generations with Stable Diffusion XL, held to those of diffusers."""

import pytest
import torch

from refiners_core.models import sdxl


@pytest.fixture(scope="module")
def pair(sdxl_folder):
    """Theirs, and ours read from the folder that theirs was saved to."""
    pipe, folder = sdxl_folder
    return pipe, sdxl.load_folder(folder, base="tiny")


@pytest.mark.parametrize("negative", [None, ["dull", "x"]])
def test_a_whole_generation_equals_that_of_diffusers(pair, negative):
    theirs, ours = pair
    noise = torch.randn(2, 4, 16, 24, generator=torch.Generator().manual_seed(1))
    prompts = ["a red circle on blue", "two cats"]
    expected = theirs(
        prompts,
        negative_prompt=negative,
        num_inference_steps=20,
        guidance_scale=5.0,
        latents=noise,
        height=32,
        width=48,
        output_type="latent",
    ).images
    arguments = {"negative_prompt": negative or "", "steps": 20, "guidance": 5.0}
    made = ours.generate(prompts, **arguments, latents=noise, output="latents", progress=False)
    assert (made - expected).norm() / expected.norm() <= 1e-4
    assert (expected - noise).norm() / noise.norm() > 0.1  # something happened


def test_pixels_equal_those_of_diffusers(pair):
    theirs, ours = pair
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = theirs(
        "x", num_inference_steps=4, guidance_scale=1.0, latents=noise, output_type="pt"
    ).images
    made = ours.generate("x", steps=4, guidance=1.0, latents=noise, output="tensor", progress=False)
    assert (made - expected).norm() / expected.norm() <= 1e-4


def test_sequential_passes_read_the_same_conditioning(pair):
    _, ours = pair
    arguments = {"seed": 1, "steps": 3, "count": 2, "output": "latents", "progress": False}
    made = ours.generate("a cat", **arguments, sequential=True)
    together = ours.generate("a cat", **arguments)
    assert (made - together).norm() / together.norm() <= 1e-5


def test_the_model_is_read_from_the_folder(pair):
    _, ours = pair
    assert (ours.size, ours.tokenizer.length) == (32, 32)
    assert ours.facts["cross_attention_dim"] == 40
    assert ours.is_silent_when_empty
    assert ours.autoencoder.config.scaling_factor == 0.13025


@torch.no_grad()
@pytest.mark.parametrize("text", ["wow! a cat!!", "!", "so? yes?! (no!)", "a cat"])
def test_the_second_tokenizer_reads_its_padding_in_a_prompt_as_published(pair, text):
    theirs, ours = pair
    expected, _, pooled, _ = theirs.encode_prompt(
        text, device="cpu", do_classifier_free_guidance=False
    )
    encoded = ours.read([text.replace("(", "\\(").replace(")", "\\)"), "other words"], {})
    assert (encoded["text"][:1] - expected).norm() / expected.norm() <= 1e-5
    assert (encoded["pooled"][:1] - pooled).norm() / pooled.norm() <= 1e-5
    weighted = ours.read([text, "(other:1.2) words"], {})
    assert weighted["pooled"][:1].allclose(ours.read([text], {})["pooled"], atol=1e-5)
