"""LoRAs are combined as PEFT's functions do, and PEFT reads the folders that are written."""

import pytest
import torch
from peft import PeftModel
from peft.utils.merge_utils import ties as peft_ties
from refiners_lora.rework import convert
from refiners_lora.rework.combination import ties
from torch import nn

from refiners_core.testing import tiny_model
from refiners_core.weights import write


@pytest.mark.parametrize("strengths", [(1.0, 1.0, 1.0), (0.8, -0.5, 1.3)])
@pytest.mark.parametrize("density", [0.3, 0.9])
def test_ties_is_that_of_peft(strengths, density):
    generator = torch.Generator().manual_seed(0)
    changes = [torch.randn(12, 9, generator=generator) for _ in strengths]
    expected = peft_ties(changes, torch.tensor(strengths), density)
    ours = ties(changes, strengths, density)
    assert float((ours - expected).norm() / expected.norm()) <= 1e-6


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
