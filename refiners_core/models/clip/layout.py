"""The layouts in which CLIP's encoders are published."""

from typing import Final

from refiners_core.weights.key_map import TRANSPOSED, KeyMap, stacked

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
    # As transformers writes it since 5.6.
    older={name: f"text_model.{name}" for name in ("embeddings", "encoder", "final_layer_norm")},
    ignored=["*.position_ids"],
)
"""The layout of transformers' text encoders, with or without the prefix of released files."""

OPEN_CLIP_TEXT_KEYS: Final = KeyMap(
    {
        "embed.token": "token_embedding",
        "embed.position.weight": "positional_embedding",
        "norm": "ln_final",
        "pooling.projection.weight": "text_projection",
        "transformer.{i}.self_attention.norm": "transformer.resblocks.{i}.ln_1",
        **{
            f"transformer.{{i}}.self_attention.attention.project.to_{letter}.{kind}": (
                f"transformer.resblocks.{{i}}.attn.in_proj_{kind}"
            )
            for letter in "qkv"
            for kind in ("weight", "bias")
        },
        "transformer.{i}.self_attention.attention.to_out": (
            "transformer.resblocks.{i}.attn.out_proj"
        ),
        "transformer.{i}.feed_forward.norm": "transformer.resblocks.{i}.ln_2",
        "transformer.{i}.feed_forward.network.expand": "transformer.resblocks.{i}.mlp.c_fc",
        "transformer.{i}.feed_forward.network.contract": "transformer.resblocks.{i}.mlp.c_proj",
    },
    transforms={
        "pooling.projection": TRANSPOSED,
        **{
            f"transformer.{{i}}.self_attention.attention.project.to_{letter}": stacked(share, 3)
            for share, letter in enumerate("qkv")
        },
    },
    ignored=["logit_scale", "attn_mask"],
)
"""The layout of OpenCLIP's text encoder: q, k and v in one matrix, the projection transposed."""

CLIP_IMAGE_KEYS: Final = (
    KeyMap(
        {
            "embed.patch": "embeddings.patch_embedding",
            "embed.class_token.weight": "embeddings.class_embedding",
            "embed.position.embedding": "embeddings.position_embedding",
            "pre_norm": "pre_layrnorm",  # spelt so in the files
            "post_norm": "post_layernorm",
        }
    )
    | _TRANSFORMER
).under("", "vision_model") | KeyMap(
    {"projection": "visual_projection"}, ignored=["*.position_ids"]
)
"""The layout of transformers' image encoders."""
