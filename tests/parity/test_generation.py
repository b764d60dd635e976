import json

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from refiners_core.models import sd15

PROMPTS = ["a red circle on blue", "two cats"]


def relative(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


def pipeline(prediction, spacing):
    torch.manual_seed(0)
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*signs, *(sign + "</w>" for sign in signs), "<|startoftext|>", "<|endoftext|>"]
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(16, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=8,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=514,
                max_position_embeddings=32,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=3,
                num_attention_heads=4,
                bos_token_id=512,
                eos_token_id=513,
            )
        ),
        tokenizer=CLIPTokenizer(
            vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=32
        ),
        unet=UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(16, 32, 32, 32),
            layers_per_block=2,
            attention_head_dim=4,
            cross_attention_dim=32,
            norm_num_groups=8,
        ),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction,
            timestep_spacing=spacing,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    # Untrained networks would predict almost nothing of what they are told.
    for part in (pipe.unet, pipe.text_encoder):
        for name, weight in part.named_parameters():
            if name.endswith("weight") and weight.ndim > 1:
                weight.data *= 1.5
    return pipe


@pytest.fixture(scope="module", params=[("epsilon", "leading"), ("v_prediction", "trailing")])
def pair(request, tmp_path_factory):
    """Theirs, and ours read from the folder that theirs was saved to."""
    pipe = pipeline(*request.param)
    folder = tmp_path_factory.mktemp("pipeline")
    pipe.save_pretrained(folder)
    return pipe, sd15.load_folder(folder, base="tiny")


def test_a_whole_generation_equals_that_of_diffusers(pair):
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
    asked = {"negative_prompt": ["dull", ""], "count": 2, "steps": 20, "guidance": 5.0}
    made = ours.generate(PROMPTS, **asked, latents=noise, output="latents", progress=False)
    assert relative(made, expected) <= 1e-4
    assert relative(expected, noise) > 0.1  # something happened


def test_pixels_equal_those_of_diffusers(pair):
    theirs, ours = pair
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = theirs(
        "x", num_inference_steps=4, guidance_scale=1.0, latents=noise, output_type="pt"
    ).images
    made = ours.generate("x", steps=4, guidance=1.0, latents=noise, output="tensor", progress=False)
    assert relative(made, expected) <= 1e-4


def test_the_folder_says_sizes_and_schedule(pair):
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
    with pytest.raises(sd15.ModelError, match=r"vae has no weights .* it has config.json"):
        sd15.load_folder(tmp_path)
    config = json.loads((tmp_path / "unet" / "config.json").read_text())
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config | {"act_fn": "mish"}))
    with pytest.raises(sd15.ModelError, match="act_fn = 'mish'"):
        sd15.load_folder(tmp_path)


def test_beginning_with_an_image_equals_diffusers(pair):
    theirs, ours = pair
    image = torch.rand(1, 3, 32, 32)
    expected = StableDiffusionImg2ImgPipeline(**theirs.components, requires_safety_checker=False)(
        "x",
        image=ours.encode(image),  # a sample of their own, of random noise, where it is no latent
        strength=0.6,
        num_inference_steps=20,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    ).images
    asked = {"image": image, "strength": 0.6, "steps": 20, "guidance": 5.0, "seed": 7}
    made = ours.generate("x", **asked, output="latents", progress=False)
    assert relative(made, expected) <= 1e-4
