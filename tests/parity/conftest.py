"""Peers with random weights, saved in the layouts in which such networks are published."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def differ() -> Callable[[Tensor, Tensor], float]:
    """How far ours is from theirs, relative to theirs."""
    return lambda ours, theirs: ((ours - theirs).norm() / theirs.norm()).item()


@pytest.fixture
def publish(tmp_path: Path) -> Callable[[nn.Module], tuple[Path, dict[str, Any]]]:
    """Saves a peer's network; returns its file of weights and its configuration."""

    def save(peer: Any) -> tuple[Path, dict[str, Any]]:
        peer.save_pretrained(tmp_path)
        (weights,) = tmp_path.glob("*.safetensors")
        return weights, json.loads((tmp_path / "config.json").read_text())

    return save
