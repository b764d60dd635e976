"""LoRAs are combined as PEFT's functions do, and PEFT reads the folders that are written."""

import pytest
import torch
from peft import PeftModel
from peft.utils.merge_utils import ties as peft_ties
from refiners_lora.rework import convert
from refiners_lora.rework.combination import ties
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from refiners_core.testing import tiny_model, tiny_sdxl
from refiners_core.weights import write


@pytest.mark.parametrize("strengths", [(1.0, 1.0, 1.0), (0.8, -0.5, 1.3)])
@pytest.mark.parametrize("density", [0.3, 0.9])
def test_ties_is_that_of_peft(strengths, density):
    generator = torch.Generator().manual_seed(0)
    changes = [torch.randn(12, 9, generator=generator) for _ in strengths]
    expected = peft_ties(changes, torch.tensor(strengths), density)
    ours = ties(changes, strengths, density)
    assert float((ours - expected).norm() / expected.norm()) <= 1e-6


@torch.no_grad()
@pytest.mark.parametrize(
    ("network", "part", "make"),
    [
        (CLIPTextModel, "text_encoder", tiny_model),
        (CLIPTextModelWithProjection, "text_encoder_2", tiny_sdxl),
    ],
)
def test_peft_reads_the_folder_of_a_text_encoder(network, part, make, tmp_path):
    model = make()
    prefix = "lora_te_" if part == "text_encoder" else "lora_te2_"
    name = f"{prefix}text_model_encoder_layers_0_mlp_fc1"
    down, up = torch.randn(2, 8), torch.randn(16, 2)
    write(
        {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, tmp_path / "x.safetensors"
    )
    convert(tmp_path / "x.safetensors", model).save(tmp_path / "peft", "peft")
    config = CLIPTextConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        vocab_size=9, projection_dim=8, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    theirs = network(config)
    before = {name: weight.clone() for name, weight in theirs.state_dict().items()}
    merged = PeftModel.from_pretrained(theirs, tmp_path / "peft" / part).merge_and_unload()
    changed = [n for n, weight in merged.state_dict().items() if not weight.equal(before[n])]
    assert [each.rpartition("encoder.")[2] for each in changed] == ["layers.0.mlp.fc1.weight"]
    difference = merged.state_dict()[changed[0]] - before[changed[0]]
    assert torch.allclose(difference, up @ down, atol=1e-5)


class Node(nn.Module):
    """A module with whatever children it is given, as a part of a network by published names."""

    def place(self, name, layer):
        first, dot, rest = name.partition(".")
        if not dot:
            self.add_module(first, layer)
            return
        if first not in self._modules:
            self.add_module(first, Node())
        self._modules[first].place(rest, layer)


@torch.no_grad()
def test_peft_reads_the_folder_to_the_same_changes(tmp_path):
    attention = "mid_block.attentions.0.transformer_blocks.0.attn1"
    layers = {
        f"{attention}.to_q": (nn.Linear(16, 16, bias=False), 3, 1.5),
        f"{attention}.to_k": (nn.Linear(16, 16, bias=False), 2, 2.0),
        "down_blocks.0.downsamplers.0.conv": (nn.Conv2d(8, 8, 3, stride=2, padding=1), 4, 8.0),
        "conv_in": (nn.Conv2d(4, 8, 3, padding=1), 2, 3.0),
    }
    network, tensors, changes = Node(), {}, {}
    for name, (layer, rank, alpha) in layers.items():
        network.place(name, layer)
        out, inner, *kernel = layer.weight.shape
        down, up = torch.randn(rank, inner, *kernel), torch.randn(out, rank, *(1 for _ in kernel))
        key = f"lora_unet_{name.replace('.', '_')}"
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        tensors[f"{key}.alpha"] = torch.tensor(alpha)
        change = up.flatten(1) @ down.flatten(1) * (alpha / rank)
        changes[name] = layer.weight + change.view_as(layer.weight)
    write(tensors, tmp_path / "style.safetensors")
    convert(tmp_path / "style.safetensors", tiny_model()).save(tmp_path / "peft", "peft")
    merged = PeftModel.from_pretrained(network, tmp_path / "peft").merge_and_unload()
    for name, expected in changes.items():
        weight = merged.get_submodule(name).weight
        assert float((weight - expected).norm() / expected.norm()) <= 1e-5, name
