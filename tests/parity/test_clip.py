import pytest
import torch
import transformers

from refiners_core import Context, weights
from refiners_core.models.clip import (
    CLIP_IMAGE_KEYS,
    CLIP_TEXT_KEYS,
    ClipImageConfig,
    ClipImageEncoder,
    ClipTextConfig,
    ClipTextEncoder,
)

TEXT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 12,
    "eos_token_id": 98,
    "projection_dim": 20,
}
IMAGE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 24,
    "patch_size": 8,
    "projection_dim": 20,
}


def build_text(source, config) -> ClipTextEncoder:
    with torch.device("meta"):
        ours = ClipTextEncoder(ClipTextConfig.from_json(config))
    return weights.load(ours, source, CLIP_TEXT_KEYS)


def build_image(source, config) -> ClipImageEncoder:
    with torch.device("meta"):
        ours = ClipImageEncoder(ClipImageConfig.from_json(config))
    return weights.load(ours, source, CLIP_IMAGE_KEYS)


def as_released(tensors):
    """Returns tensors of transformers 5.6 with the prefix and the buffer of released files."""
    named = {
        key if key.startswith(("text_model.", "text_projection")) else f"text_model.{key}": tensor
        for key, tensor in tensors.items()
    }
    return named | {"text_model.embeddings.position_ids": torch.arange(12)[None]}


def token_ids():
    ids = torch.randint(0, 97, (3, 12))
    ids[0, 4:], ids[1, 9:], ids[2, 11:] = 98, 98, 98
    return ids


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_text_features_equal_those_of_transformers(activation, publish, differ):
    peer = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(**TEXT, hidden_act=activation)
    ).eval()
    file, config = publish(peer)
    ids = token_ids()
    theirs = peer(ids, output_hidden_states=True)
    for source in (file, as_released(weights.read(file))):
        ours, context = build_text(source, config), Context()
        assert differ(ours(ids, context=context), theirs.last_hidden_state) <= 1e-5
        assert differ(context["clip.penultimate"], theirs.hidden_states[-2]) <= 1e-5
        assert "clip.pooled" not in context


@pytest.mark.parametrize("end", [98, 2])
@torch.no_grad()
def test_the_pooled_text_equals_that_of_transformers(end, publish, differ):
    peer = transformers.CLIPTextModelWithProjection(
        transformers.CLIPTextConfig(**TEXT | {"eos_token_id": end}, hidden_act="gelu")
    ).eval()
    ours, context = build_text(*publish(peer)), Context()
    ids = token_ids()
    ours(ids, context=context)
    assert differ(context["clip.pooled"], peer(ids).text_embeds) <= 1e-5


@torch.no_grad()
def test_texts_shorter_than_the_window_are_encoded(publish, differ):
    peer = transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT)).eval()
    ours = build_text(*publish(peer))
    ids = token_ids()[:, :5]
    assert differ(ours(ids), peer(ids).last_hidden_state) <= 1e-5


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_image_features_equal_those_of_transformers(activation, publish, differ):
    peer = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**IMAGE, hidden_act=activation)
    ).eval()
    ours, context = build_image(*publish(peer)), Context()
    pixels = torch.randn(2, 3, 24, 24)
    theirs = peer(pixels, output_hidden_states=True)
    assert differ(ours(pixels, context=context), theirs.image_embeds) <= 1e-5
    assert differ(context["clip.penultimate"], theirs.hidden_states[-2]) <= 1e-5


@torch.no_grad()
def test_an_image_encoder_without_projection_gives_the_pooled_features(publish, differ):
    peer = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**IMAGE)).eval()
    file, config = publish(peer)
    named = {
        key if key.startswith("vision_model.") else f"vision_model.{key}": tensor
        for key, tensor in weights.read(file).items()
    }
    pixels = torch.randn(2, 3, 24, 24)
    assert differ(build_image(named, config)(pixels), peer(pixels).pooler_output) <= 1e-5


def test_saved_weights_have_the_released_layout(publish, tmp_path):
    file, config = publish(transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT)))
    published = as_released(weights.read(file))
    ours = build_text(published, config)
    weights.save(ours, tmp_path / "again.safetensors", CLIP_TEXT_KEYS)
    again = weights.read(tmp_path / "again.safetensors")
    assert again.keys() == published.keys() - {"text_model.embeddings.position_ids"}
    assert all(torch.equal(tensor, published[key]) for key, tensor in again.items())
