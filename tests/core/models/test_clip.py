import pytest
import torch

from refiners_core import Context, select
from refiners_core.errors import ModelError
from refiners_core.models.clip import (
    ClipImageConfig,
    ClipImageEncoder,
    ClipTextConfig,
    ClipTextEncoder,
)
from refiners_core.models.vae import AutoencoderConfig

TEXT = ClipTextConfig(vocabulary=20, max_tokens=9, width=8, inner_width=12, layers=3, heads=2)
IMAGE = ClipImageConfig(
    image_size=8, patch_size=4, width=8, inner_width=12, layers=2, heads=2, projection_width=6
)


def test_a_prompt_does_not_see_what_comes_after():
    encoder = ClipTextEncoder(TEXT)
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    other = torch.tensor([[1, 2, 3, 9, 9]])
    assert torch.allclose(encoder(ids)[:, :3], encoder(other)[:, :3], atol=1e-6)


def test_skipping_the_last_layer_is_removing_it():
    """Clip skip 2 elsewhere: the features before the last layer, normalised."""
    encoder, context = ClipTextEncoder(TEXT), Context()
    ids = torch.tensor([[1, 2, 3]])
    whole = encoder(ids, context=context)
    encoder.transformer.pop("2")
    skipped = encoder(ids)
    assert skipped.equal(encoder.norm(context["clip.penultimate"]))
    assert not skipped.equal(whole)


def test_the_token_embedding_is_a_place():
    seats = select(ClipTextEncoder(TEXT)).of(torch.nn.Embedding).named("token")
    assert [seat.path for seat in seats] == ["embed.token"]


def test_a_text_longer_than_the_window_is_refused():
    with pytest.raises(ModelError, match="10 tokens is too long for 9 positions"):
        ClipTextEncoder(TEXT)(torch.zeros(1, 10, dtype=torch.long))


@pytest.mark.parametrize("size", [4, 12])
def test_a_picture_of_another_size_is_refused(size):
    with pytest.raises(ModelError, match=r"exactly 5|for 5 positions"):
        ClipImageEncoder(IMAGE)(torch.zeros(1, 3, size, size))


def test_the_configuration_of_a_whole_clip_has_both_encoders():
    published = {
        "text_config": {"hidden_size": 8, "num_hidden_layers": 2},
        "vision_config": {"hidden_size": 16, "projection_dim": 4},
    }
    assert ClipTextConfig.from_json(published).width == 8
    assert ClipImageConfig.from_json(published).width == 16
    assert ClipImageConfig.from_json(published).projection_width == 4


@pytest.mark.parametrize(
    ("kind", "published", "words"),
    [
        (ClipTextConfig, {"hidden_act": "relu"}, "no activation named 'relu'"),
        (ClipTextConfig, {"num_hidden_layers": 0}, "0 layers"),
        (ClipTextConfig, {"hidden_size": "wide"}, "hidden_size = 'wide'"),
        (ClipImageConfig, {"image_size": [224, 224]}, "image_size"),
        (AutoencoderConfig, {"act_fn": "relu"}, "act_fn = 'relu'; wanted: 'silu'"),
        (AutoencoderConfig, {"_class_name": "VQModel"}, "VQModel"),
        (AutoencoderConfig, {"down_block_types": ["AttnDownEncoderBlock2D"]}, "down_block_types"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused_by_name(kind, published, words):
    with pytest.raises(ModelError, match=words):
        kind.from_json(published)
