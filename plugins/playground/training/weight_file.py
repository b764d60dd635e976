"""Writes trained weights to the folder that the package ships."""

import torch
from run import WEIGHTS
from torch import nn

from refiners_core.weights import AS_IS, KeyMap, save


def save_half(tree: nn.Module, file: str, layout: KeyMap = AS_IS) -> None:
    """Writes a network's weights in fp16 under their published keys."""
    save(tree, WEIGHTS / file, layout, dtype=torch.float16)
