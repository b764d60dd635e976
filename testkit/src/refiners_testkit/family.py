"""Tiny models of the families that adapters are made for."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from refiners.installed.inventory import scan

from refiners_core import Model
from refiners_core.models.decoder import LanguageModel
from refiners_core.testing import generated, tiny_language_model, tiny_sdxl
from refiners_core.testing import tiny_model as tiny_sd15
from refiners_testkit.check import fail

FAMILIES: Final[Mapping[str, Callable[..., Model]]] = {
    "sd15": tiny_sd15,
    "sdxl": tiny_sdxl,
    "language": tiny_language_model,
}
"""The builders of tiny models by family."""
_LANGUAGE: Final = ("llama", "decoder", "language")


def tiny_model(family: str = "sd15", **changes: Any) -> Model:
    """Builds a tiny model of a family with random weights from a fixed seed.

    Args:
        family: `sd15`, `sdxl` or `language`.
        changes: The arguments of the builder in `refiners_core.testing` to replace.
    """
    if family not in FAMILIES:
        fail(f"no tiny model has the family {family!r}.", f"Known: {', '.join(FAMILIES)}.")
    return FAMILIES[family](**changes)


def family_of(base: str) -> str:
    """Returns the family of a base, which is installed or a family itself; empty if unknown."""
    families = {model.spec.base or model.name: model.spec.family for model in scan().models}
    family = families.get(base, base)
    return "language" if family in _LANGUAGE else family if family in FAMILIES else ""


def output(model: Any, conditions: Mapping[Any, Any]) -> Any:
    """Runs a model of any family with conditions, and returns its output."""
    if isinstance(model, LanguageModel):
        rows = [torch.arange(5), torch.arange(7)]  # of unequal length: with padding
        options: dict[str, Any] = {"max_new_tokens": 3, "output": "scores"}
        results = model.generate(rows, conditions=conditions, **options)
        return torch.cat([result.log_probabilities for result in results])
    return generated(model, conditions)
