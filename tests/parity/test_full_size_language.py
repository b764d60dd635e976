"""Language models of the released sizes, held to those of transformers.

`pytest -m slow tests/parity -rP` prints how far apart they are.

Keys and shapes are compared without weights. The two smallest models get random weights, 2 GB each.
"""

import gc
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from refiners_core import weights
from refiners_core.models.decoder import Decoder, DecoderConfig, decoder_keys, load_decoder

from . import decoder_peer

RELEASED: dict[str, tuple[str, dict[str, Any], int, int]] = {
    "Llama-3.2-1B": (
        "llama-3",
        {
            "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
            "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
            "rms_norm_eps": 1e-5, "rope_parameters": decoder_peer.RELEASED_SCALING,
            "max_position_embeddings": 131072,
        },
        146, 1_235_814_400,
    ),
    "Qwen2.5-0.5B": (
        "qwen2",
        {
            "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
            "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
            "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 32768,
        },
        290, 494_032_768,
    ),
    "Qwen3-0.6B": (
        "qwen3",
        {
            "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "head_dim": 128,
            "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
            "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 40960,
        },
        310, 596_049_920,
    ),
    "Mistral-7B-v0.1": (
        "mistral",
        {
            "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "rms_norm_eps": 1e-5, "sliding_window": 4096, "max_position_embeddings": 32768,
        },
        291, 7_241_732_096,
    ),
    "Gemma-2-2B": (
        "gemma2",
        {
            "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "head_dim": 256,
            "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
            "rms_norm_eps": 1e-6, "sliding_window": 4096, "query_pre_attn_scalar": 256,
            "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
            "max_position_embeddings": 8192,
        },
        288, 2_614_341_888,
    ),
    "GPT-2": (
        "gpt2",
        {"vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024},
        148, 124_439_808,
    ),
}  # fmt: skip
"""The configuration of each released model, and the tensors and values in its file."""


@pytest.fixture
def folder(tmp_path: Path):
    """A folder that is gone afterwards: pytest would keep gigabytes."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("name", RELEASED)
def test_the_released_sizes_have_the_released_keys(name: str):
    kind, sizes, tensors, values = RELEASED[name]
    config = decoder_peer.config_of(kind, **sizes)
    with torch.device("meta"):
        peer = decoder_peer.build(config)
        ours_config = DecoderConfig.from_json(json.loads(config.to_json_string(use_diff=False)))
        ours = weights.published(Decoder(ours_config), decoder_keys(ours_config))
    shapes = {key: tensor.shape for key, tensor in ours.items()}
    twin = {"lm_head.weight"} if ours_config.is_tied else set()
    assert shapes == {key: t.shape for key, t in peer.state_dict().items() if key not in twin}
    assert (len(ours), sum(tensor.numel() for tensor in ours.values())) == (tensors, values)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Qwen2.5-0.5B", "GPT-2"])
@torch.no_grad()
def test_full_models_write_what_those_of_transformers_write(name: str, folder: Path, differ: Any):
    kind, sizes, _, _ = RELEASED[name]
    torch.manual_seed(0)
    peer = decoder_peer.build(decoder_peer.config_of(kind, **sizes)).eval()
    ids = torch.randint(0, sizes["vocab_size"], (2, 33))
    theirs = peer(ids).logits
    written = ids[:1]
    for _ in range(6):
        written = torch.cat([written, peer(written).logits[:, -1:].argmax(-1)], dim=1)
    decoder_peer.publish(peer, folder)
    del peer
    gc.collect()
    model = load_decoder(folder)
    logits = model.decoder(ids)
    print(f"{name}, logits: {differ(logits, theirs):.1e}, equal bits: {logits.equal(theirs)}")
    assert theirs.std() > 1e-3, "there is something to compare"
    assert differ(logits, theirs) <= 1e-5
    tokens = model.generate(ids[0], max_new_tokens=6, output="tokens")
    assert tokens.equal(written[0, 33:])
