"""Stable Diffusion XL as a family: its places, and what is refused. Nothing is allocated."""

from dataclasses import replace

import pytest

from refiners_core.errors import ModelError
from refiners_core.models import sdxl
from refiners_core.models.clip import ClipTextConfig
from refiners_core.models.diffusion import SLOTS
from refiners_core.models.unet import UNetConfig

COUNTS = {
    "unet.input": 1,
    "unet.conv_in": 1,
    "unet.time_embedding": 1,
    "unet.skip.write": 9,
    "unet.skip.read": 9,
    "unet.skip.backbone": 9,
    "unet.down.output": 3,
    "unet.down.downsample": 2,
    "unet.mid.output": 1,
    "unet.self_attention": 70,
    "unet.self_attention.attend": 70,
    "unet.cross_attention": 70,
    "unet.cross_attention.attend": 70,
    "unet.linear": 743,
    "unet.conv": 51,
    "denoise.branches": 1,
    "denoise.predict": 1,
    "denoise.guidance": 1,
    "denoise.step": 1,
    "text_encoder.linear": 72 + 193,
    "text_encoder.norm": 25 + 65,
    "text_encoder.embedding": 2,
    "unet.conv_out": 1,
    "unet.down": 3,
    "unet.mid": 1,
    "unet.up": 3,
    "unet.up.output": 3,
    "unet.up.upsample": 2,
    "unet.residual": 17,
    "unet.transformer": 11,
    "unet.feed_forward": 70,
    "unet.norm": 256,
    "autoencoder.encode": 1,
    "autoencoder.decode": 1,
    "autoencoder.linear": 8,
    "autoencoder.conv": 64,
    "text_encoder.layer": 44,
    "text_encoder.output": 2,
    "text_encoder.text": 1,
}


@pytest.fixture(scope="module")
def full():
    return sdxl.build(device="meta")


@pytest.mark.parametrize("name", SLOTS)
def test_it_has_the_places_of_its_slots(full, name):
    assert len(full.slot(name)) == COUNTS[name]


def test_places_come_in_execution_order(full):
    levels = [tuple(seat.path.split(".")[1:3]) for seat in full.slot("unet.cross_attention")]
    down = [("down", "1")] * 4 + [("down", "2")] * 20
    up = [("up", "0")] * 30 + [("up", "1")] * 6
    assert levels == [*down, *[("mid", "transformer")] * 10, *up]


def test_it_has_the_facts_that_adapters_read(full):
    assert (full.base, full.size) == ("sdxl", 1024)
    assert full.facts == {"cross_attention_dim": 2048, "latent_channels": 4, "unet_channels": 4}


def test_parts_of_other_models_are_refused():
    with pytest.raises(ModelError, match="texts of width: 768, texts have: 2048"):
        sdxl.build(unet=UNetConfig(), device="meta")
    with pytest.raises(ModelError, match=r"pooled texts of width 1280, .* pools 640"):
        sdxl.build(text_encoder_2=replace(sdxl.TEXT_ENCODER_2, projection_width=640), device="meta")
    with pytest.raises(ModelError, match="pooled texts of width 0"):
        sdxl.build(unet=replace(sdxl.UNET, added_cond_width=None), device="meta")
    with pytest.raises(ModelError, match="texts have: 1536"):
        sdxl.build(text_encoder_2=ClipTextConfig(), device="meta")
