"""DINOv2 computes the same as transformers' network, in every size."""

from pathlib import Path

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from refiners_core.errors import ModelError
from refiners_core.models.device import built_on
from refiners_core.models.dino import DINO_KEYS, DinoConfig, DinoImageEncoder, dino_pixels
from refiners_core.weights import load, published, read

RELEASED = {
    "S": ((384, 1536, 12, 6, False), 22_056_576),
    "B": ((768, 3072, 12, 12, False), 86_580_480),
    "L": ((1024, 4096, 24, 16, False), 304_368_640),
    "g": ((1536, 4096, 40, 24, True), 1_136_480_768),
}
"""Width, features inside, layers, heads and gating of the released networks, and their weights."""


@torch.no_grad()
@pytest.mark.parametrize("is_gated", [False, True])
@pytest.mark.parametrize("size", [(28, 28), (56, 42)])
def test_features_equal_those_of_transformers(is_gated, size, tmp_path: Path, differ):
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    theirs = Dinov2Model(Dinov2Config(**sizes, image_size=28, use_swiglu_ffn=is_gated)).eval()
    for weight in theirs.parameters():
        weight.copy_(torch.randn(weight.shape) * 0.3)
    theirs.save_pretrained(tmp_path)
    config = DinoConfig(
        image_size=28,
        input_size=28,
        width=24,
        inner_width=64 if is_gated else 96,
        layers=2,
        heads=2,
        is_gated=is_gated,
    )
    ours = load(DinoImageEncoder(config), tmp_path / "model.safetensors", DINO_KEYS)
    pixels = torch.randn(2, 3, *size)
    assert differ(ours(pixels), theirs(pixels).last_hidden_state) <= 1e-5
    file = read(tmp_path / "model.safetensors")
    again = published(ours, DINO_KEYS)
    assert again.keys() | {"embeddings.mask_token"} == file.keys()
    assert all(torch.equal(again[key], file[key]) for key in again)


@pytest.mark.parametrize("size", RELEASED)
def test_released_sizes_have_the_shapes_of_transformers(size):
    (width, inner, layers, heads, is_gated), count = RELEASED[size]
    with torch.device("meta"):
        theirs = Dinov2Model(
            Dinov2Config(
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                image_size=518,
                use_swiglu_ffn=is_gated,
            )
        )
    with built_on("meta"):
        ours = DinoImageEncoder(
            DinoConfig(
                width=width, inner_width=inner, layers=layers, heads=heads, is_gated=is_gated
            )
        )
    assert sum(weight.numel() for weight in theirs.parameters()) == count
    assert sum(weight.numel() for weight in ours.parameters()) == count - width  # a mask token


def test_pixels_are_cropped_with_a_margin_and_normalised():
    picture = torch.zeros(3, 512, 256)
    picture[0] = 1
    pixels = dino_pixels(picture, 224)
    assert pixels.shape == (1, 3, 224, 224)
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(pixels[0].mean((1, 2)), expected, atol=1e-4, rtol=1e-4)
    edge = torch.zeros(3, 256, 256)
    edge[:, :, :16] = 1  # exactly what is cut off
    assert dino_pixels(edge, 224)[0, 0].max() < -2


def test_patches_that_do_not_tile_a_picture_are_refused():
    with pytest.raises(ModelError, match="patches of 14 pixels do not tile a side of 225"):
        DinoConfig(input_size=225)
