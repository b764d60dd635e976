"""On Stable Diffusion XL the image attention computes the same as diffusers' IP-Adapter."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from refiners_ipadapter.adapter import IpAdapter
from torch import Tensor

from refiners_core import Source
from refiners_core.models.clip import CLIP_IMAGE_KEYS, ClipImageConfig, ClipTextConfig
from refiners_core.models.sdxl import build
from refiners_core.models.unet import UNET_KEYS, UNetConfig
from refiners_core.models.vae import AutoencoderConfig
from refiners_core.weights import load, published, write

WIDTH, EMBEDDING, TOKENS = 24, 20, 4
TINY = {
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "attention_head_dim": (2, 4, 4),
    "use_linear_projection": True,
    "norm_num_groups": 8,
    "cross_attention_dim": WIDTH,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 12 + 6 * 8,
}
TEXT = ClipTextConfig(vocabulary=9, width=12, inner_width=24, layers=2, heads=2, end_token=8)
ENCODER = {
    "image-size": 32,
    "patch-size": 8,
    "width": 16,
    "inner-width": 32,
    "layers": 2,
    "heads": 2,
    "projection-width": EMBEDDING,
}


def random(unet: UNet2DConditionModel) -> dict[str, dict[str, Tensor]]:
    """Returns random weights under published keys, numbered like the peer's attentions."""
    parts: dict[str, dict[str, Tensor]] = {
        "image_proj": {
            "proj.weight": torch.randn(TOKENS * WIDTH, EMBEDDING),
            "proj.bias": torch.randn(TOKENS * WIDTH),
            "norm.weight": torch.randn(WIDTH),
            "norm.bias": torch.randn(WIDTH),
        },
        "ip_adapter": {},
    }
    for n, name in enumerate(unet.attn_processors):
        if "attn2" in name:
            inner = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
            for which in ("k", "v"):
                key = f"{n}.to_{which}_ip.weight"
                parts["ip_adapter"][key] = torch.randn(inner, WIDTH) * 0.3
    return parts


@torch.no_grad()
def test_a_prompted_unet_equals_the_peers(tmp_path: Path):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=16, **TINY).eval()
    nested = random(unet)
    flat = {
        f"{part}.{key}": value for part, tensors in nested.items() for key, value in tensors.items()
    }
    write(flat, tmp_path / "ip-adapter.safetensors")
    model = build(
        unet=UNetConfig.from_json(json.loads(unet.to_json_string())),
        text_encoder=TEXT,
        text_encoder_2=replace(TEXT, projection_width=12),
        autoencoder=AutoencoderConfig(channels=(8, 8, 8), blocks=1, groups=4),
    )
    load(model.unet, unet.state_dict(), UNET_KEYS)
    config = ClipImageConfig(**{k.replace("-", "_"): v for k, v in ENCODER.items()})
    untrained = IpAdapter(encoder=config, name="untrained").inject(model.eval())
    write(published(untrained.encoder, CLIP_IMAGE_KEYS), tmp_path / "encoder.safetensors")
    untrained.eject()
    named = {"weights": tmp_path / "ip-adapter.safetensors"}
    named |= {"encoder": tmp_path / "encoder.safetensors"}
    source = Source(named, {"encoder": ENCODER}, "tiny")
    adapter = IpAdapter(weights=lambda _: source, name="photo").inject(model)

    x, text, t = torch.randn(2, 4, 16, 16), torch.randn(2, 7, WIDTH), torch.tensor(321)
    added = {"text_embeds": torch.randn(2, 12), "time_ids": torch.randint(0, 99, (2, 6)).float()}
    embedding = torch.randn(2, EMBEDDING)
    context = {"timestep": t, "text": text, "pooled": added["text_embeds"]}
    context |= {"time_ids": added["time_ids"], adapter.scale_key: torch.tensor(0.7)}
    tokens = adapter.parts.projection(embedding)
    ours = model.unet(x, context=context | {adapter.tokens_key: tokens})
    bare = unet(x, t, text, added_cond_kwargs=added).sample
    unet._load_ip_adapter_weights([nested])
    for processor in unet.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [0.7]
    added |= {"image_embeds": [embedding.unsqueeze(1)]}
    theirs = unet(x, t, text, added_cond_kwargs=added).sample
    assert float((ours - theirs).norm() / theirs.norm()) <= 1e-5
    assert float((ours - bare).norm() / bare.norm()) > 1e-3
