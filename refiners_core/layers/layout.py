"""The key maps of layers that several models share, for folders in the layout of diffusers."""

from typing import Final

from refiners_core.weights.key_map import KeyMap

RESIDUAL_BLOCK_KEYS: Final = KeyMap(
    {
        "shortcut": "conv_shortcut",
        "body.norm_1": "norm1",
        "body.conv_1": "conv1",
        "body.shift.project": "time_emb_proj",
        "body.norm_2": "norm2",
        "body.conv_2": "conv2",
    }
)
ATTENTION_KEYS: Final = KeyMap({"project": "", "to_out": "to_out.0"})
FEED_FORWARD_KEYS: Final = KeyMap({"expand": "net.0.proj", "contract": "net.2"})
TRANSFORMER_BLOCK_KEYS: Final = (
    KeyMap(
        {
            "self_attention.norm": "norm1",
            "cross_attention.norm": "norm2",
            "feed_forward.norm": "norm3",
        }
    )
    | ATTENTION_KEYS.under("self_attention.attention", "attn1")
    | ATTENTION_KEYS.under("cross_attention.attention", "attn2")
    | FEED_FORWARD_KEYS.under("feed_forward.network", "ff")
)
SPATIAL_TRANSFORMER_KEYS: Final = KeyMap(
    {
        "norm": "norm",
        "proj_in": "proj_in",
        "proj_out": "proj_out",
        "tokens.proj_in": "proj_in",
        "tokens.proj_out": "proj_out",
    }
) | TRANSFORMER_BLOCK_KEYS.under("tokens.blocks.{k}", "transformer_blocks.{k}")
