"""Writes trained weights to the folder that the package ships."""

import torch
from run import WEIGHTS
from safetensors.torch import save_file
from torch import nn

from refiners_core.weights import AS_IS, KeyMap, save


def save_half(tree: nn.Module, file: str, layout: KeyMap = AS_IS) -> None:
    """Writes a network's weights in fp16 under their published keys."""
    save(tree, WEIGHTS / file, layout, dtype=torch.float16)


def save_plain(network: nn.Module, file: str) -> None:
    """Writes the state of a network with batch normalisation in fp16, without its counters."""
    state = {
        name: value.half().cpu().contiguous()
        for name, value in network.state_dict().items()
        if "num_batches" not in name
    }
    save_file(state, WEIGHTS / file)
