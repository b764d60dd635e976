"""Prefixes, prompts, VeRA, LN tuning and FourierFT of PEFT compute what PEFT's forward computes."""

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import peft
import pytest
import refiners
import torch
from torch import Tensor

from refiners_core.models.decoder import LanguageModel, load_decoder

from . import decoder_peer
from .decoder_peer import WORDS, sampled

GATED: Final = ("llama", "qwen2", "qwen3", "mistral", "gemma2")
KINDS: Final = (*GATED, "gpt2")
CAUSAL: Final = {"task_type": "CAUSAL_LM"}


def targets(kind: str, which: int) -> Any:
    """Returns three choices of layers: some, those of one layer, and all."""
    if which == 2:
        return "all-linear"
    gpt2 = (["c_attn", "c_fc", "lm_head"], ["c_proj"])
    gated = (["q_proj", "v_proj", "down_proj", "lm_head"], ["k_proj", "o_proj", "up_proj"])
    return (gpt2 if kind == "gpt2" else gated)[which]


def norms(kind: str, which: int) -> Any:
    gpt2 = (["ln_1"], ["ln_2", "ln_f"], ["ln_1", "ln_2", "ln_f"])
    gated = (["input_layernorm"], ["post_attention_layernorm", "norm"], r".*norm$")
    return (gpt2 if kind == "gpt2" else gated)[which]


def configs(method: str, kind: str) -> list[Any]:
    """Returns three configurations of a method."""
    layers: list[dict[str, Any]] = [{}, {"layers_to_transform": [0, 2]}, {}]
    made: Mapping[str, Any] = {
        "prefix-tuning": lambda i: peft.PrefixTuningConfig(
            **CAUSAL, num_virtual_tokens=(5, 1, 12)[i], prefix_projection=i == 1,
            encoder_hidden_size=8,
        ),
        "prompt-tuning": lambda i: peft.PromptTuningConfig(
            **CAUSAL, num_virtual_tokens=(5, 1, 12)[i]
        ),
        "p-tuning": lambda i: peft.PromptEncoderConfig(
            **CAUSAL, num_virtual_tokens=(4, 1, 11)[i], encoder_hidden_size=8,
            encoder_reparameterization_type=("MLP", "LSTM", "MLP")[i],
        ),
        "vera": lambda i: peft.VeraConfig(
            r=(4, 7, 3)[i], target_modules=targets(kind, i), save_projection=i != 1,
            projection_prng_key=(0, 13, 5)[i], **layers[i],
        ),
        "ln-tuning": lambda i: peft.LNTuningConfig(target_modules=norms(kind, i)),
        "fourier-ft": lambda i: peft.FourierFTConfig(
            n_frequency=(40, 7, 100)[i], scaling=(150.0, 20.0, 1.5)[i],
            target_modules=targets(kind, i), random_loc_seed=(777, 1, 2)[i],
            n_frequency_pattern={targets(kind, 0)[0]: 11} if i == 0 else {}, **layers[i],
        ),
    }  # fmt: skip
    return [made[method](i) for i in range(3)]


METHODS: Final = ("prefix-tuning", "prompt-tuning", "p-tuning", "vera", "ln-tuning", "fourier-ft")


@cache
def models(kind: str) -> tuple[Any, LanguageModel]:
    """Returns a model of transformers, and ours from the folder in which it is published."""
    peer = decoder_peer.peer_of(kind)
    return peer, load_decoder(decoder_peer.publish(peer, Path(mkdtemp()) / kind))


def worn_by(kind: str, config: Any, folder: Path) -> Any:
    """Puts a random adapter of PEFT on a model, saves it, and returns the model."""
    worn = peft.get_peft_model(deepcopy(models(kind)[0]), config)
    torch.manual_seed(1)
    for weight in worn.parameters():
        if weight.requires_grad:
            weight.data = torch.randn(weight.shape) * 0.4
    worn.save_pretrained(folder)
    return worn.eval()


def logits(worn: Any, ids: Tensor) -> Tensor:
    """Returns PEFT's logits of the text, without those of learned tokens."""
    return worn(ids).logits[:, -ids.shape[1] :]


@torch.no_grad()
@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", sampled(KINDS))
def test_a_folder_of_peft_computes_what_peft_computes(
    kind: str, method: str, which: int, tmp_path: Path, differ: Any
):
    torch.manual_seed(0)
    worn = worn_by(kind, configs(method, kind)[which], tmp_path)
    model = models(kind)[1]
    ids = torch.randint(0, WORDS, (2, 14))
    bare = model.decoder(ids)
    adapter = refiners.load_adapter(str(tmp_path), model)
    ours = model.decoder(ids, context={adapter.scale_key: torch.tensor(1.0)})
    assert differ(ours, bare) > 1e-3
    assert differ(ours, logits(worn, ids)) <= 1e-5
    adapter.eject()
    assert torch.equal(model.decoder(ids), bare)
