"""How CLIP's encoders are published."""

from typing import Final

from refiners_core.weights.key_map import KeyMap

_TRANSFORMER: Final = KeyMap(
    {
        "self_attention.norm": "layer_norm1",
        "self_attention.attention.project.to_q": "self_attn.q_proj",
        "self_attention.attention.project.to_k": "self_attn.k_proj",
        "self_attention.attention.project.to_v": "self_attn.v_proj",
        "self_attention.attention.to_out": "self_attn.out_proj",
        "feed_forward.norm": "layer_norm2",
        "feed_forward.network.expand": "mlp.fc1",
        "feed_forward.network.contract": "mlp.fc2",
    }
).under("transformer.{i}", "encoder.layers.{i}")

CLIP_TEXT_KEYS: Final = (
    KeyMap(
        {
            "embed.token": "embeddings.token_embedding",
            "embed.position": "embeddings.position_embedding",
            "norm": "final_layer_norm",
        }
    )
    | _TRANSFORMER
).under("", "text_model") | KeyMap(
    {"pooling.projection": "text_projection"},
    # What transformers writes since 5.6.
    older={name: f"text_model.{name}" for name in ("embeddings", "encoder", "final_layer_norm")},
    ignored=["*.position_ids"],
)
"""The layout of transformers' folders, with the prefix that released encoders have or without."""

CLIP_IMAGE_KEYS: Final = (
    KeyMap(
        {
            "embed.patch": "embeddings.patch_embedding",
            "embed.class_token.weight": "embeddings.class_embedding",
            "embed.position.embedding": "embeddings.position_embedding",
            "pre_norm": "pre_layrnorm",  # the slip of the pen is in the files
            "post_norm": "post_layernorm",
        }
    )
    | _TRANSFORMER
).under("", "vision_model") | KeyMap(
    {"projection": "visual_projection"}, ignored=["*.position_ids"]
)
"""The layout of transformers' folders."""
