"""Detection of the kind of a weights file from its header: published names and shapes."""

import pytest
import torch

from refiners_core import weights
from refiners_core.models import sd15, sdxl
from refiners_core.models.clip import CLIP_TEXT_KEYS
from refiners_core.models.formats.single_file import Parts, single_file_keys
from refiners_core.models.unet import UNET_KEYS, UNet, UNetConfig
from refiners_core.models.vae import AUTOENCODER_KEYS
from refiners_core.weights import Detected, detect

KOHYA = "lora_unet_{}_transformer_blocks_0_attn2_to_k.lora_down.weight"
PEFT = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight"
OLD = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight"
LDM = "input_blocks.4.1.transformer_blocks.0.attn2.to_k"
DIFFUSERS = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def shapes(tree, layout):
    return {key: tuple(it.shape) for key, it in weights.published(tree, layout).items()}


@pytest.mark.parametrize(("family", "base"), [(sd15, "sd15"), (sdxl, "sdxl")])
def test_models_and_their_parts_are_recognised(family, base):
    ours = family.build(device="meta")
    whole = shapes(Parts(ours), single_file_keys(ours))
    assert detect(whole) == Detected("model", "ldm", base)
    prefix = "model.diffusion_model."
    unet = {k.removeprefix(prefix): v for k, v in whole.items() if k.startswith(prefix)}
    assert detect(unet) == Detected("unet", "ldm", base)
    assert detect(shapes(ours.unet, UNET_KEYS)) == Detected("unet", "diffusers", base)
    autoencoder = shapes(ours.autoencoder, AUTOENCODER_KEYS)
    assert detect(autoencoder) == Detected("autoencoder", "diffusers")


def test_a_text_encoder_is_recognised_with_the_prefix_and_without():
    header = shapes(sd15.build(device="meta").text_encoder, CLIP_TEXT_KEYS)
    assert detect(header) == Detected("text-encoder", "transformers")
    bare = {key.removeprefix("text_model."): shape for key, shape in header.items()}
    assert detect(bare) == Detected("text-encoder", "transformers")


def test_inpainting_and_editing_are_recognised_by_channels():
    for channels, variant in ((9, "inpaint"), (8, "edit")):
        with torch.device("meta"):
            unet = UNet(UNetConfig(in_channels=channels))
        assert detect(shapes(unet, UNET_KEYS)) == Detected("unet", "diffusers", "sd15", variant)


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        (
            {f"model.diffusion_model.{LDM}.weight": (640, 1024), "first_stage_model.x": (1,)},
            ("model", "ldm", "sd2"),
        ),
        (
            {f"model.diffusion_model.{LDM}.weight": (640, 1280), "first_stage_model.x": (1,)},
            ("model", "ldm", "sdxl-refiner"),
        ),
        (
            {"model.diffusion_model.double_blocks.0.img_attn.proj.weight": (3072, 3072)},
            ("model", "of another architecture"),
        ),
        ({KOHYA.format("down_blocks_0"): (4, 768)}, ("lora", "kohya", "sd15")),
        ({KOHYA.format("input_blocks_4_1"): (4, 2048)}, ("lora", "kohya", "sdxl")),
        ({"lora_te2_text_projection.lora_down.weight": (4, 9)}, ("lora", "kohya", "sdxl")),
        ({"lora_te_text_model_x.lora_down.weight": (4, 9)}, ("lora", "kohya", None)),
        ({PEFT: (4, 2048)}, ("lora", "peft", "sdxl")),
        ({OLD: (4, 768)}, ("lora", "diffusers", "sd15")),
        (
            {"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3), DIFFUSERS: (320, 768)},
            ("controlnet", "diffusers", "sd15"),
        ),
        (
            {"controlnet_cond_embedding.x": (1,), "task_embedding": (6, 320), DIFFUSERS: (9, 2048)},
            ("controlnet", "diffusers", "sdxl", "union"),
        ),
        (
            {"control_model.zero_convs.0.0.weight": (1,), f"control_model.{LDM}.weight": (1, 768)},
            ("controlnet", "ldm", "sd15"),
        ),
        ({"lora_controlnet": (0,), f"{LDM}.down": (64, 2048)}, ("control-lora", "ldm", "sdxl")),
        ({"adapter.body.0.resnets.0.block1.weight": (1,)}, ("t2i-adapter", "diffusers")),
        ({"body.0.block1.weight": (1,)}, ("t2i-adapter", "original")),
        (
            {"image_proj.proj.weight": (1, 1), "ip_adapter.1.to_k_ip.weight": (320, 768)},
            ("ip-adapter", "base", "sd15"),
        ),
        (
            {"image_proj.latents": (1, 16, 1), "ip_adapter.1.to_k_ip.weight": (640, 2048)},
            ("ip-adapter", "plus", "sdxl"),
        ),
        (
            {"image_proj.latents": (1, 16, 1), "image_proj.proj_in.weight": (1280, 512)},
            ("ip-adapter", "instantid"),
        ),
        ({"image_proj.proj.3.weight": (768,)}, ("ip-adapter", "full")),
        (
            {"image_proj.norm.weight": (1,), "image_proj.perceiver_resampler.proj_in.weight": (1,)},
            ("ip-adapter", "faceid-plus"),
        ),
        ({"image_proj.norm.weight": (768,)}, ("ip-adapter", "faceid")),
        ({"ip_adapter.1.to_k_ip.weight": (320, 768)}, ("ip-adapter", "", "sd15")),
        ({"vision_model.post_layernorm.weight": (1280,)}, ("image-encoder", "transformers")),
        ({"encoder.down.0.block.0.conv1.weight": (1,)}, ("autoencoder", "ldm")),
        ({"clip_l": (4, 768), "clip_g": (4, 1280)}, ("textual-inversion", "", "sdxl")),
        ({"emb_params": (4, 768)}, ("textual-inversion", "")),
        ({"weight": (2, 2)}, ("unknown",)),
        ({}, ("unknown",)),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_files_are_recognised(header, kind):
    assert detect(header) == Detected(*kind)


def test_a_kind_is_described_in_words():
    assert str(Detected("lora", "kohya", "sdxl")) == "a LoRA of sdxl (kohya)"
    assert str(Detected("unet", "ldm", "sd15", "inpaint")) == "a UNet of sd15 (ldm, inpaint)"
