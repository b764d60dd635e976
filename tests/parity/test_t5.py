"""T5's encoder computes what transformers' T5EncoderModel computes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from refiners_core import weights
from refiners_core.errors import ModelError
from refiners_core.models.t5 import T5_KEYS, T5_MASK, T5Config, T5Encoder, T5Tokenizer

SIZES = {
    "vocab_size": 61, "d_model": 24, "d_ff": 40, "num_layers": 3, "num_heads": 4, "d_kv": 8,
    "feed_forward_proj": "gated-gelu", "relative_attention_max_distance": 20,
}  # fmt: skip


def peer_of(**changes: Any) -> Any:
    torch.manual_seed(0)
    peer = transformers.T5EncoderModel(transformers.T5Config(**SIZES | changes)).eval()
    for name, weight in peer.named_parameters():
        weight.data = torch.randn(weight.shape) * (
            0.5 if "bias" in name or weight.ndim == 1 else 0.2
        )
    return peer


def ours_of(source: Any, config: dict[str, Any]) -> T5Encoder:
    with torch.device("meta"):
        encoder = T5Encoder(T5Config.from_json(config))
    return weights.load(encoder, source, T5_KEYS)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 7, 50])  # shorter and longer than the farthest distance
def test_features_equal_those_of_transformers(tokens: int, publish: Any, differ: Any):
    peer = peer_of()
    source, config = publish(peer)
    ours = ours_of(source, config)
    ids = torch.randint(0, 61, (3, tokens))
    assert differ(ours(ids), peer(ids).last_hidden_state) <= 1e-5
    mask = torch.arange(tokens) < torch.tensor([[1], [max(1, tokens // 2)], [tokens]])
    expected = peer(ids, attention_mask=mask).last_hidden_state
    made = ours(ids, context={T5_MASK: mask})
    assert differ(made[mask], expected[mask]) <= 1e-5


@torch.no_grad()
def test_half_precision_keeps_features_that_exceed_its_range(publish: Any):
    peer = peer_of()
    source, config = publish(peer)
    tensors = weights.read(source)
    large = {
        k: v * 300 if k.endswith(("wi_1.weight", "wo.weight")) else v for k, v in tensors.items()
    }
    ids = torch.randint(0, 61, (1, 5))
    whole, half = ours_of(large, config)(ids), ours_of(large, config).half()(ids)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), whole, rtol=0.05, atol=0.05)


def test_a_round_trip_keeps_every_bit_and_reads_a_whole_model(publish: Any):
    source, config = publish(peer_of())
    tensors = weights.read(source)
    whole = tensors | {"decoder.block.0.x": torch.ones(1), "lm_head.weight": torch.ones(1)}
    saved = weights.published(ours_of(whole, config), T5_KEYS)
    assert all(torch.equal(saved[key], tensors[key]) for key in saved)
    assert tensors.keys() - saved.keys() <= {"encoder.embed_tokens.weight"}


@pytest.mark.parametrize("change", [{"feed_forward_proj": "relu"}, {"rope_theta": 1.0}])
def test_other_kinds_are_refused(change: dict[str, Any]):
    with pytest.raises(ModelError, match=next(iter(change))):
        T5Config.from_json(SIZES | change)
    with pytest.raises(ModelError, match="feed_forward_proj"):
        T5Config.from_json({"d_model": 8})


def test_the_released_sizes_have_the_released_keys():
    with torch.device("meta"):
        encoder = T5Encoder(T5Config())
        peer = transformers.T5EncoderModel(transformers.T5Config(
            vocab_size=32128, d_model=2048, d_ff=5120, num_layers=24, num_heads=32, d_kv=64,
            feed_forward_proj="gated-gelu",
        ))  # fmt: skip
    shapes = {key: tensor.shape for key, tensor in weights.published(encoder, T5_KEYS).items()}
    twin = "encoder.embed_tokens.weight"
    assert shapes == {k: v.shape for k, v in peer.state_dict().items() if k != twin}


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    """A unigram tokenizer in the form of the released ones."""
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -2.0),
        ("▁cat", -3.0),
        ("s", -4.0),
    ]
    pieces += [(letter, -6.0) for letter in "abcdefghijklmnopqrtuvwxyz,"]
    model = Tokenizer(models.Unigram(pieces, unk_id=2))
    model.normalizer = normalizers.NFKC()
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    model.add_special_tokens(["<pad>", "</s>"])
    model.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


@pytest.mark.parametrize("length", [None, 4, 16])
def test_tokens_equal_those_of_transformers(tokenizer_file: Path, length: int | None):
    peer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file), pad_token="<pad>", eos_token="</s>"
    )
    texts = ["", "cats, cat", "a small cat on a mat é"]
    padding = {"padding": True} if length is None else {"padding": "max_length"}
    expected = peer(
        texts, return_tensors="pt", max_length=length, truncation=length is not None, **padding
    )
    ids, mask = T5Tokenizer.load(tokenizer_file).rows(texts, length)
    assert torch.equal(ids, expected.input_ids)
    assert torch.equal(mask.long(), expected.attention_mask)


def test_other_files_are_not_tokenizers(tmp_path: Path, tokenizer_file: Path):
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ModelError, match=r"other\.json is not a tokenizer"):
        T5Tokenizer.load(tmp_path / "other.json")
    data = json.loads(tokenizer_file.read_text())
    data["added_tokens"] = []
    data["model"]["vocab"][0] = ["<other>", 0.0]
    (tmp_path / "other.json").write_text(json.dumps(data))
    with pytest.raises(ModelError, match="has no '<pad>'"):
        T5Tokenizer.load(tmp_path / "other.json")
