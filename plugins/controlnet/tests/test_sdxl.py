"""On Stable Diffusion XL the side network computes the same as diffusers' ControlNetModel."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from refiners_controlnet.adapter import ControlNet

from refiners_core import Source
from refiners_core.models.clip import ClipTextConfig
from refiners_core.models.diffusion import GenerationRequest
from refiners_core.models.sdxl import build
from refiners_core.models.unet import UNET_KEYS, UNetConfig
from refiners_core.models.vae import AutoencoderConfig
from refiners_core.weights import load

TINY = {
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (2, 4, 4),
    "use_linear_projection": True,
    "norm_num_groups": 8,
    "cross_attention_dim": 24,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 12 + 6 * 8,
}
OFFICIAL = TINY | {
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "norm_num_groups": 32,
    "cross_attention_dim": 2048,
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
UP = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
TEXT = ClipTextConfig(vocabulary=9, width=12, inner_width=24, layers=2, heads=2, end_token=8)


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape) * 0.1)
    return model.eval()


@torch.no_grad()
def test_a_controlled_unet_equals_the_peers(tmp_path: Path):
    torch.manual_seed(0)
    unet = randomised(UNet2DConditionModel(sample_size=16, up_block_types=UP, **TINY))
    control = ControlNetModel(conditioning_embedding_out_channels=(8, 16, 24), **TINY)
    randomised(control).save_pretrained(tmp_path)
    x, text, t = torch.randn(2, 4, 16, 16), torch.randn(2, 7, 24), torch.tensor(321)
    pooled, ids = torch.randn(2, 12), torch.randint(0, 1024, (2, 6)).float()
    picture, added = torch.rand(2, 3, 64, 64), {"text_embeds": pooled, "time_ids": ids}
    skips, mid = control(
        x, t, text, controlnet_cond=picture, added_cond_kwargs=added, return_dict=False
    )
    more = {"down_block_additional_residuals": skips, "mid_block_additional_residual": mid}
    theirs = unet(x, t, text, added_cond_kwargs=added, **more).sample

    model = build(
        unet=UNetConfig.from_json(json.loads(unet.to_json_string())),
        text_encoder=TEXT,
        text_encoder_2=replace(TEXT, projection_width=12),
        autoencoder=AutoencoderConfig(channels=(8, 8, 8), blocks=1, groups=4),
    )
    load(model.unet, unet.state_dict(), UNET_KEYS)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    adapter = ControlNet(weights=lambda _: Source({"weights": file}), name="control").inject(model)
    request = GenerationRequest(
        model=model,
        count=2,
        branches=("cond",),
        height=64,
        width=64,
        latent_height=16,
        latent_width=16,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    encoded = adapter.encode(picture, request)
    context = {key: branches["cond"] for key, branches in encoded.items()}
    context |= {"timestep": t, "text": text, "pooled": pooled, "time_ids": ids}
    ours = model.unet(x, context=context | {adapter.scale_key: torch.tensor(1.0)})
    assert float((ours - theirs).norm() / theirs.norm()) <= 1e-5
    bare = unet(x, t, text, added_cond_kwargs=added).sample
    assert float((ours - bare).norm() / bare.norm()) > 1e-3


def test_the_released_sizes_have_the_keys_and_shapes_of_the_released_files():
    with torch.device("meta"):
        theirs = ControlNetModel(**OFFICIAL).state_dict()
    ours = ControlNet().inject(build(device="meta")).published()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert (len(ours), sum(v.numel() for v in ours.values())) == (844, 1_251_014_160)
