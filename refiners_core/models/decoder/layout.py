"""The layouts in which language models are published."""

from typing import Final

from refiners_core.models.decoder.config import DecoderConfig
from refiners_core.weights.key_map import TURNED, KeyMap, stacked

_OURS, _THEIRS, _GPT2 = "blocks.{i}", "model.layers.{i}", "transformer.h.{i}"


def decoder_keys(config: DecoderConfig) -> KeyMap:
    """Returns the layout in which transformers publishes a decoder.

    Files of the network without its head, whose names lack the first word, are read as well.

    Args:
        config: The sizes of the decoder.
    """
    return _gpt2(config) if config.norm == "layer" else _llama(config)


def _llama(config: DecoderConfig) -> KeyMap:
    attention, feed_forward = f"{_OURS}.attention", f"{_OURS}.feed_forward"
    names = {
        "embed": "model.embed_tokens",
        "norm": "model.norm",
        "head": "model.embed_tokens" if config.is_tied else "lm_head",
        **{f"{attention}.project.to_{x}": f"{_THEIRS}.self_attn.{x}_proj" for x in "qkv"},
        **{f"{attention}.norm_heads.{x}": f"{_THEIRS}.self_attn.{x}_norm" for x in "qk"},
        f"{attention}.to_out": f"{_THEIRS}.self_attn.o_proj",
        f"{attention}.norm": f"{_THEIRS}.input_layernorm",
        f"{feed_forward}.expand.gate": f"{_THEIRS}.mlp.gate_proj",
        f"{feed_forward}.expand.value": f"{_THEIRS}.mlp.up_proj",
        f"{feed_forward}.contract": f"{_THEIRS}.mlp.down_proj",
        f"{feed_forward}.norm": f"{_THEIRS}.post_attention_layernorm",
    }
    if config.has_output_norm:
        names |= {
            f"{attention}.norm_output": f"{_THEIRS}.post_attention_layernorm",
            f"{feed_forward}.norm": f"{_THEIRS}.pre_feedforward_layernorm",
            f"{feed_forward}.norm_output": f"{_THEIRS}.post_feedforward_layernorm",
        }
    older = {name: f"model.{name}" for name in ("embed_tokens", "norm", "layers.{i}")}
    ignored = ["*rotary_emb.inv_freq", *_twin(config)]
    return KeyMap(names, older=older, ignored=ignored, layers=_HEAD)


def _gpt2(config: DecoderConfig) -> KeyMap:
    attention, feed_forward = f"{_OURS}.attention", f"{_OURS}.feed_forward"
    transposed = (f"{attention}.to_out", f"{feed_forward}.expand", f"{feed_forward}.contract")
    return KeyMap(
        {
            "embed": "transformer.wte",
            "learned.places": "transformer.wpe",
            "norm": "transformer.ln_f",
            "head": "transformer.wte" if config.is_tied else "lm_head",
            **{f"{attention}.project.to_{x}": f"{_GPT2}.attn.c_attn" for x in "qkv"},
            f"{attention}.to_out": f"{_GPT2}.attn.c_proj",
            f"{attention}.norm": f"{_GPT2}.ln_1",
            f"{feed_forward}.expand": f"{_GPT2}.mlp.c_fc",
            f"{feed_forward}.contract": f"{_GPT2}.mlp.c_proj",
            f"{feed_forward}.norm": f"{_GPT2}.ln_2",
        },
        transforms={
            **{
                f"{attention}.project.to_{x}": stacked(share, 3, dim=-1, transform=TURNED)
                for share, x in enumerate("qkv")
            },
            **dict.fromkeys(transposed, TURNED),
        },
        older={name: f"transformer.{name}" for name in ("wte", "wpe", "ln_f", "h.{i}")},
        # Masks of the original code, which the released files contain.
        ignored=["*h.*.attn.bias", "*h.*.attn.masked_bias", *_twin(config)],
        layers=_HEAD,
    )


def _twin(config: DecoderConfig) -> list[str]:
    """Returns the key of a head that shares its weight with the embedding."""
    return [f"{_HEAD['head']}.weight"] if config.is_tied else []


_HEAD: Final = {"head": "lm_head"}
"""The head, which is a layer of this name even where it shares the weight of the embedding."""
