"""The adapters of PEFT's files keep the contract of adapters."""

import tomllib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from refiners_peft.fourier import FourierTuning
from refiners_peft.norm import NormTuning
from refiners_peft.prefix import PrefixTuning
from refiners_peft.prompt import PromptTuning
from refiners_peft.vera import Vera

from refiners_core import Adapter, Source
from refiners_core.testing import LAWS, AdapterCase

from .published import METHODS, language_model, published

CLASSES = dict(
    zip(METHODS, (PrefixTuning, PromptTuning, Vera, NormTuning, FourierTuning), strict=True)
)


@cache
def folder(method: str) -> Path:
    return published(method, Path(mkdtemp()) / method)


def make(method: str) -> Adapter:
    path = folder(method) / "adapter_model.safetensors"
    return CLASSES[method](weights=lambda _: Source({"weights": path}), name=method)


def scores(model: Any, conditions: Any) -> torch.Tensor:
    """Writes after rows of unequal length, which need padding and a cache."""
    rows = [torch.arange(5), torch.arange(7)]
    results = model.generate(rows, conditions=conditions, max_new_tokens=3, output="scores")
    return torch.cat([result.log_probabilities for result in results])


def targets(method: str) -> list[tuple[str, str]]:
    manifest = tomllib.loads((files("refiners_peft") / "adapter.toml").read_text())
    (variant,) = manifest["adapter"][method]["variant"]
    return [(target["slot"], target["stage"]) for target in variant["targets"]]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("method", METHODS)
def test_it_keeps_the_contract(method: str, law: Callable[[AdapterCase], None]):
    law(AdapterCase(lambda: make(method), language_model, targets=targets(method), run=scores))
