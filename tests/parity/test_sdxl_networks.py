"""The networks of Stable Diffusion XL, held to diffusers and transformers."""

import diffusers
import pytest
import torch
import transformers

from refiners_core import Context, weights
from refiners_core.models.clip import (
    CLIP_TEXT_KEYS,
    ClipTextConfig,
    ClipTextEncoder,
    TextEncoderPair,
)
from refiners_core.models.unet import UNET_KEYS, UNet, UNetConfig

TINY = {
    "block_out_channels": (16, 32, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "attention_head_dim": (2, 4, 8),
    "use_linear_projection": True,
    "norm_num_groups": 8,
    "cross_attention_dim": 20,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 12 + 6 * 8,
}
OFFICIAL = TINY | {
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "norm_num_groups": 32,
    "cross_attention_dim": 2048,
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
}
BIG_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
    "architectures": ["CLIPTextModelWithProjection"],
}


@torch.no_grad()
def test_the_prediction_equals_that_of_diffusers(publish, differ):
    peer = diffusers.UNet2DConditionModel(**TINY).eval()
    file, config = publish(peer)
    with torch.device("meta"):
        ours = UNet(UNetConfig.from_json(config))
    weights.load(ours, file, UNET_KEYS)
    assert ours.config.pooled_width == 12
    latents, text = torch.randn(2, 4, 8, 16), torch.randn(2, 7, 20)
    pooled, ids = torch.randn(2, 12), torch.randint(0, 1024, (2, 6))
    added = {"text_embeds": pooled, "time_ids": ids}
    for timestep in (torch.tensor(421), torch.tensor([981, 1])):
        theirs = peer(latents, timestep, text, added_cond_kwargs=added).sample
        values = {"timestep": timestep, "text": text, "pooled": pooled, "time_ids": ids}
        assert differ(ours(latents, context=values), theirs) <= 1e-5
    weights.save(ours, file, UNET_KEYS)
    again = diffusers.UNet2DConditionModel.from_pretrained(file.parent).state_dict()
    assert all(torch.equal(tensor, again[key]) for key, tensor in peer.state_dict().items())


def test_the_unet_of_official_size_has_the_published_tensors():
    with torch.device("meta"):
        ours = UNet(UNetConfig.from_json(OFFICIAL))
        peer = diffusers.UNet2DConditionModel(**OFFICIAL)
    layout_tensors = weights.published(ours, UNET_KEYS)
    shapes = {key: tensor.shape for key, tensor in layout_tensors.items()}
    assert shapes == {key: tensor.shape for key, tensor in peer.state_dict().items()}
    assert (len(layout_tensors), sum(w.numel() for w in ours.parameters())) == (1680, 2_567_463_684)


def test_the_second_text_encoder_of_official_size_has_the_published_tensors():
    config = ClipTextConfig.from_json(BIG_G)
    with torch.device("meta"):
        ours = ClipTextEncoder(config)
        peer = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**BIG_G))
    layout_tensors = weights.published(ours, CLIP_TEXT_KEYS)
    shapes = {key: tensor.shape for key, tensor in layout_tensors.items()}
    assert shapes == {key: tensor.shape for key, tensor in peer.state_dict().items()}
    assert (len(layout_tensors), sum(w.numel() for w in ours.parameters())) == (517, 694_659_840)


@pytest.mark.parametrize("end", [98, 2])
@torch.no_grad()
def test_a_pair_of_text_encoders_equals_those_of_transformers(end, tmp_path, differ):
    sizes = {"vocab_size": 99, "num_attention_heads": 4, "max_position_embeddings": 12}
    sizes |= {"num_hidden_layers": 3, "intermediate_size": 48, "projection_dim": 20}
    kinds = transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection
    changes = {"hidden_size": 16}, {"hidden_size": 24, "hidden_act": "gelu"}
    peers, ours = [], []
    for kind, change in zip(kinds, changes, strict=True):
        config = transformers.CLIPTextConfig(**sizes | change, eos_token_id=end)
        peers.append(kind(config).eval())
        settings = config.to_dict() | {"architectures": [kind.__name__]}
        encoder = ClipTextEncoder(ClipTextConfig.from_json(settings))
        ours.append(weights.load(encoder, peers[-1].state_dict(), CLIP_TEXT_KEYS))
    pair, context = TextEncoderPair(*ours), Context()
    ids = torch.randint(0, 97, (2, 12))
    ids[0, 4:], ids[1, 11:] = 98, 98
    padded = ids.clone()
    padded[0, 5:] = 0
    first = peers[0](ids, output_hidden_states=True)
    second = peers[1](padded, output_hidden_states=True)
    theirs = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    assert differ(pair(ids, context=context), theirs) <= 1e-5
    assert differ(context["clip.pooled"], second.text_embeds) <= 1e-5
