"""Adapters that PEFT saved of language models compute what PEFT computes of them."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import refiners
import torch
from peft import (
    AdaLoraConfig,
    BOFTConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    TrainableTokensConfig,
    get_peft_model,
)

from refiners_core.models.decoder import LanguageModel, load_decoder

from . import decoder_peer
from .decoder_peer import WORDS

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gpt2")
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IDS = torch.randint(0, WORDS, (2, 9), generator=torch.Generator().manual_seed(4))
USED = list(dict.fromkeys(IDS.flatten().tolist()))
"""The tokens of the inputs."""


@dataclass(frozen=True)
class Pair:
    """A model of transformers and ours of the same weights."""

    kind: str
    theirs: Any
    ours: LanguageModel


@pytest.fixture(scope="module")
def pair(request: Any, tmp_path_factory: Any) -> Pair:
    peer = decoder_peer.peer_of(request.param).requires_grad_(False)
    folder = decoder_peer.publish(peer, tmp_path_factory.mktemp(request.param))
    return Pair(request.param, peer, load_decoder(folder))


def targets(kind: str, *names: str) -> list[str]:
    """Returns the layers of a family that others call so."""
    gpt2 = {
        "q_proj": "c_attn",
        "o_proj": "attn.c_proj",
        "up_proj": "c_fc",
        "down_proj": "mlp.c_proj",
    }
    gpt2 |= {"embed_tokens": "wte", "lm_head": "lm_head", "norm": "ln_f"}
    return [gpt2[name] for name in names if name in gpt2] if kind == "gpt2" else list(names)


Config = Callable[[str], Any]
CONFIGS: Mapping[str, Config] = {
    "LoRA": lambda k: LoraConfig(r=3, lora_alpha=7, target_modules=targets(k, *ALL)),
    "LoRA with patterns": lambda k: LoraConfig(
        r=3,
        lora_alpha=7,
        target_modules=targets(k, *ALL),
        rank_pattern={r".*\.1\..*": 5, targets(k, "down_proj")[0]: 2},
        alpha_pattern={targets(k, "up_proj")[0]: 2, r"^nothing": 9},
    ),
    "LoRA with biases": lambda k: LoraConfig(
        r=3, lora_alpha=7, target_modules=targets(k, *ALL[:5]), lora_bias=True, bias="all"
    ),
    "LoRA, one bias": lambda k: LoraConfig(
        r=3, lora_alpha=7, target_modules=targets(k, "q_proj"), bias="lora_only"
    ),
    "LoRA of both tables": lambda k: LoraConfig(
        r=3, lora_alpha=7, target_modules=targets(k, "q_proj", "embed_tokens", "lm_head")
    ),
    "LoRA of some blocks": lambda k: LoraConfig(
        r=3, lora_alpha=7, target_modules=targets(k, *ALL), layers_to_transform=[0, 2]
    ),
    "rsLoRA": lambda k: LoraConfig(
        r=4, lora_alpha=6, use_rslora=True, target_modules=targets(k, *ALL)
    ),
    "rsLoRA with patterns": lambda k: LoraConfig(
        r=4,
        lora_alpha=8,
        use_rslora=True,
        target_modules=targets(k, "q_proj", "k_proj", "v_proj", "up_proj"),
        rank_pattern={targets(k, "up_proj")[0]: 16},
        alpha_pattern={targets(k, "v_proj", "q_proj")[0]: 2},
    ),
    "rsLoRA of a head": lambda k: LoraConfig(
        r=4, lora_alpha=6, use_rslora=True, target_modules=targets(k, "lm_head", "o_proj")
    ),
    "DoRA": lambda k: LoraConfig(
        r=3, lora_alpha=7, use_dora=True, target_modules=targets(k, *ALL)
    ),
    "DoRA with biases": lambda k: LoraConfig(
        r=3, lora_alpha=7, use_dora=True, target_modules=targets(k, "q_proj", "up_proj"), bias="all"
    ),
    "DoRA, rank-stabilised": lambda k: LoraConfig(
        r=5, lora_alpha=7, use_dora=True, use_rslora=True, target_modules=targets(k, *ALL[:4])
    ),
    "saved modules": lambda k: LoraConfig(
        r=3,
        lora_alpha=7,
        target_modules=targets(k, "q_proj"),
        modules_to_save=targets(k, "lm_head", "embed_tokens"),
    ),
    "saved norms": lambda k: LoraConfig(
        r=3,
        lora_alpha=7,
        target_modules=targets(k, "q_proj"),
        modules_to_save=targets(k, "norm", "down_proj"),
    ),
    "saved embedding": lambda k: LoraConfig(
        r=3,
        lora_alpha=7,
        target_modules=targets(k, "down_proj"),
        modules_to_save=targets(k, "embed_tokens"),
    ),
    "trained tokens beside LoRA": lambda k: LoraConfig(
        r=3,
        lora_alpha=7,
        target_modules=targets(k, "q_proj"),
        trainable_token_indices=[USED[2], 3, 11],
    ),
    "trained tokens of two tables": lambda k: LoraConfig(
        r=3,
        lora_alpha=7,
        target_modules=targets(k, "q_proj"),
        trainable_token_indices={targets(k, "embed_tokens")[0]: [USED[1], 2], "lm_head": [9]},
    ),
    "trained tokens": lambda k: TrainableTokensConfig(
        token_indices=[*USED[:2]], target_modules=targets(k, "embed_tokens")
    ),
    "AdaLoRA": lambda k: AdaLoraConfig(
        init_r=4, target_r=2, total_step=9, lora_alpha=6, target_modules=targets(k, *ALL)
    ),
    "AdaLoRA of alpha 0": lambda k: AdaLoraConfig(
        init_r=5, total_step=9, lora_alpha=0, target_modules=targets(k, "q_proj", "down_proj")
    ),
    "AdaLoRA with a head": lambda k: AdaLoraConfig(
        init_r=4,
        total_step=9,
        lora_alpha=6,
        target_modules=targets(k, "up_proj"),
        modules_to_save=["lm_head"],
    ),
    "IA3": lambda k: IA3Config(
        target_modules=targets(k, "q_proj", "k_proj", "v_proj", "down_proj"),
        feedforward_modules=targets(k, "down_proj"),
    ),
    "IA3 of outputs": lambda k: IA3Config(
        target_modules=targets(k, *ALL), feedforward_modules=[]
    ),
    "IA3 with a head": lambda k: IA3Config(
        target_modules=targets(k, "q_proj", "up_proj"),
        feedforward_modules=targets(k, "up_proj"),
        modules_to_save=["lm_head"],
    ),
    "LoHa": lambda k: LoHaConfig(r=3, alpha=7, target_modules=ALL),
    "LoHa with patterns": lambda k: LoHaConfig(
        r=3, alpha=7, target_modules=ALL, rank_pattern={"q_proj": 2}, alpha_pattern={"up_proj": 1}
    ),
    "LoHa with a head": lambda k: LoHaConfig(
        r=4, alpha=2, target_modules=ALL[:2], modules_to_save=["lm_head"]
    ),
    "LoKr": lambda k: LoKrConfig(r=2, alpha=3, target_modules=ALL),
    "LoKr of whole factors": lambda k: LoKrConfig(
        r=64, alpha=32, target_modules=ALL, decompose_factor=8
    ),
    "LoKr of four factors": lambda k: LoKrConfig(
        r=1, alpha=3, decompose_both=True, target_modules=ALL, alpha_pattern={"k_proj": 1}
    ),
    "OFT": lambda k: OFTConfig(
        oft_block_size=4, use_cayley_neumann=False, target_modules=ALL, bias="oft_only"
    ),
    "OFT of a series": lambda k: OFTConfig(oft_block_size=8, target_modules=ALL),
    "OFT, one block for all": lambda k: OFTConfig(
        oft_block_size=4, block_share=True, coft=True, eps=0.3, target_modules=ALL[:3]
    ),
    "BOFT": lambda k: BOFTConfig(boft_block_size=4, target_modules=ALL),
    "BOFT of blocks by number": lambda k: BOFTConfig(
        boft_block_num=4, boft_block_size=0, target_modules=ALL[:4]
    ),
    "BOFT with biases": lambda k: BOFTConfig(
        boft_block_size=8, target_modules=ALL, bias="boft_only"
    ),
}  # fmt: skip
NOT_GPT2 = ("LoHa", "LoKr", "OFT", "BOFT")
"""The methods that PEFT does not put on the layers of GPT-2."""
CASES = [
    (kind, config)
    for number, kind in enumerate(FAMILIES)
    for position, config in enumerate(CONFIGS)
    if not (kind == "gpt2" and config.startswith(NOT_GPT2))
    # All configurations on two families, which name and shape layers in both ways that there are;
    # on each other family one of three.
    if kind in ("llama", "gpt2") or position % 3 == number % 3
]


def trained(pair: Pair, config: Any, folder: Path) -> Any:
    """Returns a model with an adapter of PEFT, all weights of which are random, and saves it."""
    if pair.kind == "gpt2" and hasattr(config, "fan_in_fan_out"):
        config.fan_in_fan_out = True
    worn = get_peft_model(copy.deepcopy(pair.theirs), config).eval()
    noise = torch.Generator().manual_seed(2)
    for name, weight in worn.named_parameters():
        if weight.requires_grad:
            change = torch.randn(weight.shape, generator=noise)
            is_absolute = any(
                mark in name for mark in ("lora_", "hada_", "lokr_", "oft_R", "boft_R")
            )
            is_absolute = is_absolute and "magnitude" not in name
            weight.data = change * 0.2 if is_absolute else weight.data + change * 0.2
    worn.save_pretrained(folder)
    return worn


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("pair", "config"), CASES, indirect=["pair"])
@torch.no_grad()
def test_an_adapter_equals_its_own(pair: Pair, config: str, tmp_path: Path, differ: Any):
    bare = pair.ours.decoder(IDS)
    theirs = trained(pair, CONFIGS[config](pair.kind), tmp_path)(IDS).logits
    adapter = refiners.load_adapter(tmp_path, pair.ours)
    try:
        ours = pair.ours.decoder(IDS, context={adapter.scale_key: torch.tensor(1.0)})
        assert differ(ours, bare) > 1e-3
        assert differ(ours, theirs) <= 1e-5
        assert torch.equal(pair.ours.decoder(IDS), bare)
        adapter.merge()
        assert differ(pair.ours.decoder(IDS), theirs) <= 1e-5
    finally:
        adapter.eject()
    assert torch.equal(pair.ours.decoder(IDS), bare)
