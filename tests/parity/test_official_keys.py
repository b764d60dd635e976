"""Our trees of official size have just the tensors that are published; nothing is allocated."""

import diffusers
import pytest
import torch
import transformers

from refiners_core import weights
from refiners_core.models.clip import (
    CLIP_IMAGE_KEYS,
    CLIP_TEXT_KEYS,
    ClipImageConfig,
    ClipImageEncoder,
    ClipTextConfig,
    ClipTextEncoder,
)
from refiners_core.models.unet import UNET_KEYS, UNet, UNetConfig
from refiners_core.models.vae import AUTOENCODER_KEYS, AutoencoderConfig, AutoencoderKL

UNET = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
}
AUTOENCODER = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
TEXT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "architectures": ["CLIPTextModel"],
}
IMAGE = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "patch_size": 14,
    "hidden_act": "gelu",
    "projection_dim": 1024,
    "architectures": ["CLIPVisionModelWithProjection"],
}


def shapes(tensors, prefix=""):
    return {
        key if key.startswith(prefix) else prefix + key: tuple(tensor.shape)
        for key, tensor in tensors.items()
    }


def count(tree) -> int:
    return sum(weight.numel() for weight in tree.parameters())


@pytest.fixture(autouse=True)
def nothing_allocated():
    with torch.device("meta"):
        yield


def test_the_unet_of_sd15():
    config = UNetConfig.from_json(UNET)
    assert config == UNetConfig()
    ours = UNet(config)
    ours_shapes = shapes(weights.published(ours, UNET_KEYS))
    assert ours_shapes == shapes(diffusers.UNet2DConditionModel(**UNET).state_dict())
    assert (len(ours_shapes), count(ours)) == (686, 859_520_964)


def test_the_autoencoder_of_sd15():
    config = AutoencoderConfig.from_json(AUTOENCODER)
    assert config == AutoencoderConfig()
    ours = AutoencoderKL(config)
    ours_shapes = shapes(weights.published(ours, AUTOENCODER_KEYS))
    assert ours_shapes == shapes(diffusers.AutoencoderKL(**AUTOENCODER).state_dict())
    assert (len(ours_shapes), count(ours)) == (248, 83_653_863)


def test_the_text_encoder_of_sd15():
    config = ClipTextConfig.from_json(TEXT)
    assert config == ClipTextConfig()
    ours = ClipTextEncoder(config)
    ours_shapes = shapes(weights.published(ours, CLIP_TEXT_KEYS))
    peer = transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT))
    assert ours_shapes == shapes(peer.state_dict(), "text_model.")
    assert (len(ours_shapes), count(ours)) == (196, 123_060_480)


def test_the_image_encoder_of_ip_adapter():
    config = ClipImageConfig.from_json(IMAGE)
    assert config == ClipImageConfig()
    ours = ClipImageEncoder(config)
    ours_shapes = shapes(weights.published(ours, CLIP_IMAGE_KEYS))
    peer = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**IMAGE))
    assert ours_shapes == shapes(peer.state_dict())
    assert (len(ours_shapes), count(ours)) == (520, 632_076_800)
