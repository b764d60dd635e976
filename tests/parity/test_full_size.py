"""Networks of the released sizes, held to their peers: `pytest -m slow tests/parity -rP` prints how
far apart they are.

A peer gets random weights, says what it makes of random inputs, is saved in its layout and freed
before ours is loaded from that file. The largest needs 11 GB of memory and 21 GB on the disk.
"""

import gc
import json
import shutil

import diffusers
import pytest
import torch
import transformers

from refiners_core import Context, weights
from refiners_core.models import sdxl
from refiners_core.models.clip import (
    CLIP_IMAGE_KEYS,
    CLIP_TEXT_KEYS,
    ClipImageConfig,
    ClipImageEncoder,
    ClipTextConfig,
    ClipTextEncoder,
)
from refiners_core.models.formats.diffusers_config import of_autoencoder, of_text_encoder, of_unet
from refiners_core.models.unet import UNET_KEYS, UNet, UNetConfig
from refiners_core.models.vae import AUTOENCODER_KEYS, AutoencoderConfig, AutoencoderKL

pytestmark = pytest.mark.slow

VIT_H = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
    "projection_dim": 1024,
}
BIG_G = VIT_H | {
    "hidden_size": 1664,
    "intermediate_size": 8192,
    "num_hidden_layers": 48,
    "projection_dim": 1280,
}


@pytest.fixture
def folder(tmp_path):
    """A folder that is gone afterwards: pytest would keep tens of gigabytes."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def drawn(build):
    """Returns a peer whose random weights keep the size of what passes."""
    with torch.device("meta"):
        peer = build()
    peer.to_empty(device="cpu")
    source = torch.Generator().manual_seed(0)
    for name, weight in peer.named_parameters():
        if weight.ndim > 1:
            fan = weight.shape[-1] if "embedding" in name else weight[0].numel()
            weight.data.normal_(0, fan**-0.5, generator=source)
        else:
            around = 1.0 if name.endswith("weight") else 0.0
            weight.data.normal_(around, 0.1, generator=source)
    for name, buffer in peer.named_buffers():
        assert name.endswith("position_ids"), name
        buffer.copy_(torch.arange(buffer.shape[-1]).expand(buffer.shape))
    return peer.eval().requires_grad_(False)


def saved(peer, folder):
    """Saves a peer as it is published; returns its file of weights and its configuration."""
    peer.save_pretrained(folder / "theirs", max_shard_size="20GB")
    (file,) = (folder / "theirs").glob("*.safetensors")
    return file, json.loads((folder / "theirs/config.json").read_text())


def loaded(tree, file, layout):
    """Loads our network, all of whose weights come from the file."""
    gc.collect()
    weights.load(tree, file, layout)
    assert not any(weight.is_meta for weight in tree.parameters())
    return tree.eval().requires_grad_(False)


def check_way_back(kind, ours, layout, file):
    """Checks that the peer reads saved weights back bit for bit."""
    folder = file.parent
    again = folder.with_name("ours")
    shutil.copytree(folder, again, ignore=shutil.ignore_patterns("*.safetensors"))
    weights.save(ours, again / file.name, layout)
    peer = kind.from_pretrained(again)
    theirs = weights.read(file)
    tensors = {**dict(peer.named_parameters()), **dict(peer.named_buffers())}
    assert theirs.keys() <= tensors.keys()
    assert tensors.keys() - theirs.keys() <= {
        key for key in tensors if key.endswith("position_ids")
    }
    assert all(torch.equal(tensors[key], tensor) for key, tensor in theirs.items())


@pytest.fixture
def check(differ, request):
    """Prints how far ours is from theirs, and holds it to the bar."""

    def apart(what, ours, theirs):
        error = differ(ours, theirs)
        print(f"{request.node.callspec.id}, {what}: {error:.1e}")
        assert theirs.std() > 1e-3, "nothing to compare"
        assert error <= 1e-5

    return apart


@pytest.mark.parametrize(
    "config", [UNetConfig(), sdxl.UNET], ids=["UNet of SD 1.5", "UNet of SDXL"]
)
@torch.no_grad()
def test_unets_equal_those_of_diffusers(config, folder, check):
    peer = drawn(lambda: diffusers.UNet2DConditionModel(**of_unet(config)))
    latents, text = torch.randn(2, 4, 16, 16), torch.randn(2, 77, config.text_width)
    values, added = {"timestep": torch.tensor(421), "text": text}, None
    if config.pooled_width:
        values["pooled"] = torch.randn(2, config.pooled_width)
        values["time_ids"] = torch.tensor([[1024.0, 1024.0, 0.0, 64.0, 1024.0, 1024.0]] * 2)
        added = {"text_embeds": values["pooled"], "time_ids": values["time_ids"]}
    theirs = peer(latents, 421, text, added_cond_kwargs=added).sample
    file, settings = saved(peer, folder)
    del peer
    with torch.device("meta"):
        ours = UNet(UNetConfig.from_json(settings))
    assert ours.config == config
    loaded(ours, file, UNET_KEYS)
    check("prediction", ours(latents, context=values), theirs)
    check_way_back(diffusers.UNet2DConditionModel, ours, UNET_KEYS, file)


@pytest.mark.parametrize(
    "config", [AutoencoderConfig(), sdxl.AUTOENCODER], ids=["VAE of SD 1.5", "VAE of SDXL"]
)
@torch.no_grad()
def test_autoencoders_equal_those_of_diffusers(config, folder, check):
    peer = drawn(lambda: diffusers.AutoencoderKL(**of_autoencoder(config)))
    pixels, latents = torch.rand(2, 3, 256, 192) * 2 - 1, torch.randn(2, 4, 32, 24)
    encoded = peer.encode(pixels).latent_dist.mean * config.scaling_factor
    decoded = peer.decode(latents / config.scaling_factor).sample
    file, settings = saved(peer, folder)
    del peer
    with torch.device("meta"):
        ours = AutoencoderKL(AutoencoderConfig.from_json(settings))
    assert ours.config == config
    loaded(ours, file, AUTOENCODER_KEYS)
    check("encode", ours.encode(pixels, sample=False), encoded)
    check("decode", ours.decode(latents), decoded)
    check_way_back(diffusers.AutoencoderKL, ours, AUTOENCODER_KEYS, file)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (transformers.CLIPTextModel, ClipTextConfig()),
        (transformers.CLIPTextModelWithProjection, sdxl.TEXT_ENCODER_2),
    ],
    ids=["text encoder ViT-L", "text encoder bigG"],
)
@torch.no_grad()
def test_text_encoders_equal_those_of_transformers(kind, config, folder, check):
    peer = drawn(lambda: kind(transformers.CLIPTextConfig(**of_text_encoder(config))))
    ids = torch.randint(0, config.end_token, (2, 77))
    ids[0, 9:], ids[1, 70:] = config.end_token, config.end_token
    theirs = peer(ids, output_hidden_states=True)
    file, settings = saved(peer, folder)
    del peer
    with torch.device("meta"):
        ours = ClipTextEncoder(ClipTextConfig.from_json(settings))
    assert ours.config == config
    loaded(ours, file, CLIP_TEXT_KEYS)
    known = Context()
    check("tokens", ours(ids, context=known), theirs.last_hidden_state)
    check("penultimate", known["clip.penultimate"], theirs.hidden_states[-2])
    if config.projection_width is not None:
        check("pooled", known["clip.pooled"], theirs.text_embeds)
    check_way_back(kind, ours, CLIP_TEXT_KEYS, file)


@pytest.mark.parametrize("sizes", [VIT_H, BIG_G], ids=["image encoder ViT-H", "image encoder bigG"])
@torch.no_grad()
def test_image_encoders_equal_those_of_transformers(sizes, folder, check):
    kind = transformers.CLIPVisionModelWithProjection
    peer = drawn(lambda: kind(transformers.CLIPVisionConfig(**sizes)))
    pixels = torch.randn(2, 3, 224, 224)
    theirs = peer(pixels, output_hidden_states=True)
    file, settings = saved(peer, folder)
    del peer
    with torch.device("meta"):
        ours = ClipImageEncoder(ClipImageConfig.from_json(settings))
    loaded(ours, file, CLIP_IMAGE_KEYS)
    known = Context()
    check("projected", ours(pixels, context=known), theirs.image_embeds)
    check("penultimate", known["clip.penultimate"], theirs.hidden_states[-2])
    check_way_back(kind, ours, CLIP_IMAGE_KEYS, file)
