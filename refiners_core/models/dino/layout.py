"""The layout in which DINOv2's encoders are published."""

from typing import Final

from refiners_core.weights.key_map import KeyMap

DINO_KEYS: Final = KeyMap(
    {
        "self_attention.norm": "norm1",
        "self_attention.attention.project.to_q": "attention.attention.query",
        "self_attention.attention.project.to_k": "attention.attention.key",
        "self_attention.attention.project.to_v": "attention.attention.value",
        "self_attention.attention.to_out": "attention.output.dense",
        "self_attention.scale.weight": "layer_scale1.lambda1",
        "feed_forward.norm": "norm2",
        "feed_forward.network.expand": "mlp.fc1",
        "feed_forward.network.contract": "mlp.fc2",
        "feed_forward.gated.expand": "mlp.weights_in",
        "feed_forward.gated.contract": "mlp.weights_out",
        "feed_forward.scale.weight": "layer_scale2.lambda1",
    }
).under("transformer.{i}", "encoder.layer.{i}") | KeyMap(
    {
        "patch": "embeddings.patch_embeddings.projection",
        "tokens.class_token": "embeddings.cls_token",
        "tokens.position": "embeddings.position_embeddings",
        "norm": "layernorm",
    },
    ignored=["embeddings.mask_token"],
)
"""The layout of transformers' encoders."""
