"""A language model in a repository of the Hub is the one that its folder is."""

import json
from pathlib import Path

import pytest
import refiners
import torch
from refiners.testing import LoopbackHub

from refiners_core.errors import ModelError

from . import decoder_peer


def published(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("shard", ["5GB", "10KB"])
def test_a_repository_equals_its_folder(shard: str, tmp_path: Path) -> None:
    peer = decoder_peer.peer_of("qwen2")
    folder = decoder_peer.publish(peer, tmp_path / "lm", max_shard_size=shard)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    extra = {"README.md": b"hello", "original/consolidated.00.safetensors": b"0", "a.bin": b"0"}
    with LoopbackHub() as hub, hub.in_use(tmp_path / "hf"):
        commit = hub.publish("org/lm", {**published(folder), **extra}).commit
        model = refiners.load_model(f"hf:org/lm@{commit}")
        requested = {request.path.split("/", 4)[-1] for request in hub.requests}
        hub.requests.clear()
        again = refiners.load_model(f"hf:org/lm@{commit}", offline=True)
        assert hub.requests == []
    assert not requested & {*extra}
    ids = torch.arange(12).view(1, 12)
    with torch.no_grad():
        expected = peer(ids).logits
        assert torch.equal(model.decoder(ids), expected)
        assert torch.equal(again.decoder(ids), expected)


def test_an_unknown_kind_is_refused_before_its_weights_are_fetched(tmp_path: Path) -> None:
    files = published(decoder_peer.publish(decoder_peer.peer_of("llama"), tmp_path / "lm"))
    config = json.loads(files["config.json"]) | {"model_type": "flute"}
    with LoopbackHub() as hub, hub.in_use(tmp_path / "hf"):
        what = hub.publish("org/lm", {**files, "config.json": json.dumps(config).encode()})
        with pytest.raises(ModelError, match="flute"):
            refiners.load_model(f"hf:org/lm@{what.commit}")
        assert not [r.path for r in hub.requests if r.path.endswith("model.safetensors")]
