"""LoRA by published names on decoders computes what PEFT computes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft_lora import PeftLora

from refiners_core.models.decoder import load_decoder

from . import decoder_peer
from .decoder_peer import WORDS

TARGETS = {
    "llama": ["q_proj", "k_proj", "o_proj", "gate_proj", "down_proj"],
    "gemma2": ["v_proj", "up_proj"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
}


@torch.no_grad()
@pytest.mark.parametrize("kind", TARGETS)
def test_a_lora_of_peft_is_read_by_published_names(kind: str, tmp_path: Path, differ: Any):
    peer = decoder_peer.peer_of(kind)
    model = load_decoder(decoder_peer.publish(peer, tmp_path / "base"))
    ids = torch.randint(0, WORDS, (2, 9))
    bare = model.decoder(ids)
    config = LoraConfig(
        r=3, lora_alpha=7, target_modules=TARGETS[kind], fan_in_fan_out=kind == "gpt2"
    )
    worn = get_peft_model(peer, config).eval()
    for name, weight in worn.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape) * 0.1
    worn.save_pretrained(tmp_path / "lora")
    lora = PeftLora(tmp_path / "lora", name="lora").inject(model)
    ours = model.decoder(ids, context={lora.scale_key: torch.tensor(1.0)})
    assert differ(ours, worn(ids).logits) <= 1e-5
    assert differ(ours, bare) > 1e-2
    lora.eject()
    assert torch.equal(model.decoder(ids), bare)
