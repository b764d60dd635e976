"""Whole generations with Stable Diffusion XL, held to those of diffusers."""

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from refiners_core.models import sdxl

TEXT = {
    "vocab_size": 514,
    "max_position_embeddings": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "bos_token_id": 512,
    "eos_token_id": 513,
    "projection_dim": 24,
}


def tokenizer(padding):
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*signs, *(sign + "</w>" for sign in signs), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: i for i, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=32, pad_token=padding)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Theirs, and ours read from the folder that theirs was saved to."""
    torch.manual_seed(0)
    pipe = StableDiffusionXLPipeline(
        vae=AutoencoderKL(
            block_out_channels=(16, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=8,
            scaling_factor=0.13025,
        ),
        text_encoder=CLIPTextModel(CLIPTextConfig(**TEXT, hidden_size=16)),
        text_encoder_2=CLIPTextModelWithProjection(
            CLIPTextConfig(**TEXT, hidden_size=24, hidden_act="gelu")
        ),
        tokenizer=tokenizer("<|endoftext|>"),
        tokenizer_2=tokenizer("!"),
        unet=UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(16, 32, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 1, 2),
            attention_head_dim=(1, 2, 4),
            use_linear_projection=True,
            norm_num_groups=8,
            cross_attention_dim=40,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24 + 6 * 8,
        ),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    # Untrained networks would predict almost nothing of what they are told.
    for part in (pipe.unet, pipe.text_encoder, pipe.text_encoder_2):
        for name, weight in part.named_parameters():
            if name.endswith("weight") and weight.ndim > 1:
                weight.data *= 1.5
    folder = tmp_path_factory.mktemp("pipeline")
    pipe.save_pretrained(folder)
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
    asked = {"negative_prompt": negative or "", "steps": 20, "guidance": 5.0}
    made = ours.generate(prompts, **asked, latents=noise, output="latents", progress=False)
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


def test_passes_one_after_the_other_are_told_the_same(pair):
    _, ours = pair
    asked = {"seed": 1, "steps": 3, "count": 2, "output": "latents", "progress": False}
    made = ours.generate("a cat", **asked, sequential=True)
    together = ours.generate("a cat", **asked)
    assert (made - together).norm() / together.norm() <= 1e-5


def test_the_folder_says_what_the_model_is(pair):
    _, ours = pair
    assert (ours.size, ours.tokenizer.length) == (32, 32)
    assert ours.facts["cross_attention_dim"] == 40
    assert ours.is_silent_when_empty
    assert ours.autoencoder.config.scaling_factor == 0.13025
