"""Decoders compute what transformers' models compute, from the files that it writes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from refiners_core import weights
from refiners_core.errors import ModelError, WeightsError
from refiners_core.models.decoder import (
    CACHE,
    TOKEN_MASK,
    Cache,
    Decoder,
    DecoderConfig,
    decoder_keys,
    load_decoder,
)

from . import decoder_peer
from .decoder_peer import KINDS, RELEASED_SCALING, WORDS

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module", params=KINDS)
def pair(request: Any, tmp_path_factory: Any) -> tuple[str, Any, Any]:
    """A kind, transformers' model, and ours from its folder."""
    peer = decoder_peer.peer_of(request.param)
    folder = decoder_peer.publish(peer, tmp_path_factory.mktemp("decoder"))
    return request.param, peer, load_decoder(folder)


def ids_of(rows: int = 2, tokens: int = 21) -> torch.Tensor:
    return torch.randint(0, WORDS, (rows, tokens))


def test_logits_equal_those_of_transformers(pair: Any, differ: Any):
    kind, peer, model = pair
    ids = ids_of()
    ours, theirs = model.decoder(ids), peer(ids).logits
    assert differ(ours, theirs) <= 1e-5
    assert kind == "gpt2" or torch.equal(ours, theirs)


def test_padding_changes_nothing(pair: Any, differ: Any):
    _, peer, model = pair
    ids = ids_of()
    mask = torch.arange(21) >= torch.tensor([[13], [0]])
    places = (mask.long().cumsum(-1) - 1).clamp(min=0)
    ours = model.decoder(ids, context={TOKEN_MASK: mask})
    theirs = peer(ids, attention_mask=mask.long(), position_ids=places).logits
    assert differ(ours[mask], theirs[mask]) <= 1e-5
    assert differ(ours[:1, 13:], model.decoder(ids[:1, 13:])) <= 1e-5
    assert ours.isfinite().all()


@pytest.mark.parametrize("chunks", [(21,), (7, 7, 7), (12, *(1,) * 9)])
@pytest.mark.parametrize("capacity", [2, 32])  # too small, and enough
def test_calls_with_a_cache_equal_one_pass(
    pair: Any, differ: Any, chunks: tuple[int, ...], capacity: int
):
    model = pair[2]
    ids, cache = ids_of(), Cache(capacity)
    mask = torch.arange(21) >= torch.tensor([[5], [0]])
    parts = [
        model.decoder(part, context={CACHE: cache, TOKEN_MASK: real})
        for part, real in zip(ids.split(chunks, 1), mask.split(chunks, 1), strict=True)
    ]
    whole = model.decoder(ids, context={TOKEN_MASK: mask})
    assert differ(torch.cat(parts, 1)[mask], whole[mask]) <= 1e-5
    assert cache.length == 21


def test_a_round_trip_keeps_every_bit_without_a_copy(pair: Any, tmp_path: Path):
    _, peer, model = pair
    file = weights.read(decoder_peer.publish(peer, tmp_path) / "model.safetensors")
    with torch.device("meta"):
        decoder = Decoder(model.config)
    weights.load(decoder, file, keys := decoder_keys(model.config))
    places = {tensor.untyped_storage().data_ptr() for tensor in file.values()}
    assert {weight.untyped_storage().data_ptr() for weight in decoder.parameters()} == places
    saved = weights.published(decoder, keys)
    assert saved.keys() == file.keys()
    assert all(torch.equal(saved[key], file[key]) for key in file)
    assert (decoder.head.weight is decoder.embed.weight) == model.config.is_tied


ODD: dict[str, tuple[str, dict[str, Any]]] = {
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "heads that differ from the width": ("llama", {"head_dim": 6}),
    "linear scaling": (
        "llama", {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 9.0}}
    ),
    "no window": ("mistral", {"sliding_window": None}),
    "windows of upper layers": (
        "qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}
    ),
    "biases of Qwen 3": ("qwen3", {"attention_bias": True}),
    "an untied head": ("qwen3", {"tie_word_embeddings": False}),
    "no caps": ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "scales by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    "no scale": ("gpt2", {"scale_attn_weights": False, "n_inner": 20}),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_every_setting_is_followed(name: str, tmp_path: Path, differ: Any):
    kind, changes = ODD[name]
    peer = decoder_peer.peer_of(kind, **changes)
    model = load_decoder(decoder_peer.publish(peer, tmp_path))
    ids = ids_of(tokens=12)
    assert differ(model.decoder(ids), peer(ids).logits) <= 1e-5
    plain = load_decoder(decoder_peer.publish(decoder_peer.peer_of(kind), tmp_path / "plain"))
    assert plain.config != model.config


# --- files ---


def test_several_files_with_an_index_are_read(tmp_path: Path, differ: Any):
    peer = decoder_peer.peer_of("llama")
    folder = decoder_peer.publish(peer, tmp_path, max_shard_size="20KB")
    assert len([*folder.glob("*.safetensors")]) > 2
    ids = ids_of()
    assert torch.equal(load_decoder(folder).decoder(ids), peer(ids).logits)
    half = load_decoder(folder, dtype=torch.bfloat16)
    assert half.decoder.dtype == torch.bfloat16
    assert half.decoder(ids).isfinite().all()


def test_names_without_their_first_word_and_masks_in_the_file_are_read(tmp_path: Path, differ: Any):
    for kind, prefix in (("gpt2", "transformer."), ("llama-3", "model.")):
        peer = decoder_peer.peer_of(kind)
        folder = decoder_peer.publish(peer, tmp_path / kind)
        tensors = weights.read(folder / "model.safetensors")
        older = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
        if kind == "gpt2":
            older |= {f"h.{i}.attn.bias": torch.ones(1, 1, 4, 4) for i in range(3)}
        else:
            older["lm_head.weight"] = torch.zeros(WORDS, 32)  # tied: the embedding counts
        save_file(older, folder / "model.safetensors", metadata={"format": "pt"})
        ids = ids_of()
        assert differ(load_decoder(folder).decoder(ids), peer(ids).logits) <= 1e-5


def test_folders_that_cannot_be_read_are_refused(tmp_path: Path):
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_decoder(tmp_path)
    peer = decoder_peer.peer_of("llama")
    folder = decoder_peer.publish(peer, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    tensors = weights.read(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"lm_head\.weight"):
        load_decoder(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only as a pickle"):
        load_decoder(folder)


# --- configurations ---


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_parameters": RELEASED_SCALING},
        {"rope_theta": 500000.0, "rope_scaling": RELEASED_SCALING},
        {
            "rope_theta": 500000.0,
            "rope_scaling": {
                {"rope_type": "type"}.get(key, key): value
                for key, value in RELEASED_SCALING.items()
            },
        },
    ],
)
def test_scaled_frequencies_are_read_under_every_name(spelling: dict[str, Any]):
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    peer = LlamaRotaryEmbedding(
        decoder_peer.config_of("llama-3", head_dim=64, rope_parameters=RELEASED_SCALING)
    )
    data = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 1}
    rope = DecoderConfig.from_json({**data, **spelling}).rope
    assert rope is not None
    frequencies = rope.frequencies(64, torch.device("cpu"))
    assert torch.equal(frequencies, peer.inv_freq)
    plain = 1 / (500000.0 ** (torch.arange(0, 64, 2) / 64))
    ratios = (plain / frequencies).round(decimals=3)
    assert [(ratios == 1).sum(), (ratios == 32).sum()] == [15, 14]


QWEN = {"use_sliding_window": True, "sliding_window": 4, "num_hidden_layers": 4}


@pytest.mark.parametrize(
    ("data", "windows"),
    [
        ({"model_type": "qwen2", **QWEN, "max_window_layers": 2}, (None, None, 4, 4)),
        ({"model_type": "qwen3", **QWEN, "max_window_layers": 4}, (None,) * 4),
        ({"model_type": "qwen2", **QWEN, "use_sliding_window": False}, ()),
        ({"model_type": "qwen2", "sliding_window": 4}, ()),
        ({"model_type": "mistral", "sliding_window": 4, "num_hidden_layers": 2}, (4, 4)),
        ({"model_type": "mistral", "sliding_window": None}, ()),
        ({"model_type": "gemma2", "sliding_window": 4, "num_hidden_layers": 3}, (4, None, 4)),
        (
            {
                "model_type": "gemma2", "num_hidden_layers": 2, "sliding_window": 5,
                "layer_types": ["full_attention", "sliding_attention"],
            },
            (None, 5),
        ),
    ],
)  # fmt: skip
def test_windows_are_of_the_layers_that_have_them(data: dict[str, Any], windows: Any):
    assert DecoderConfig.from_json(data).windows == windows


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "mamba"},
        {"hidden_act": "gelu"},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        {"rope_scaling": {"rope_type": "llama3", "factor": 4.0}},
        {"rope_scaling": {"type": "linear"}},
        {"partial_rotary_factor": 0.5},
        {"num_experts": 8},
        {"quantization_config": {"bits": 4}},
        {"model_type": "gemma2", "num_hidden_layers": 2, "layer_types": ["full_attention"]},
        {"model_type": "gpt2", "activation_function": "relu"},
    ],
)
def test_other_kinds_are_refused(change: dict[str, Any]):
    with pytest.raises(ModelError, match=[*change][-1]):
        DecoderConfig.from_json({"model_type": "llama", **change})
