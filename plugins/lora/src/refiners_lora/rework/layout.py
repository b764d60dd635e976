"""The layouts in which a plain LoRA is written: those of diffusers, kohya and PEFT."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.weights import write
from refiners_lora.alpha import Strength, configured
from refiners_lora.layer_name import Published
from refiners_lora.lora_file import CONFIG, METADATA
from refiners_lora.rework.source import WEIGHTS
from refiners_lora.rework.target import Factors
from refiners_lora.role import PEFT

LAYOUTS: Final = ("diffusers", "kohya", "peft")
"""The layouts; the first is the default."""

Entries = Sequence[tuple[Published, Factors]]
"""The layers of a LoRA and their updates."""


def written(entries: Entries, path: Path, layout: str, metadata: Mapping[str, str]) -> None:
    """Writes a plain LoRA.

    Args:
        entries: The layers and their updates.
        path: The file; in PEFT's layout the folder.
        layout: One of `LAYOUTS`.
        metadata: The metadata of each file.

    Raises:
        WeightsError: A file cannot be written.
    """
    entries = sorted(entries, key=lambda entry: (entry[0].part, entry[0].name))
    if layout == "peft":
        _write_peft(entries, path, metadata)
    elif layout == "kohya":
        write(_kohya(entries), path, metadata)
    else:
        write(_diffusers(entries), path, {**metadata, METADATA: _configuration(entries)})


def _diffusers(entries: Entries) -> dict[str, Tensor]:
    return {
        f"{layer.part}.{layer.name}.lora_{half}.weight": weight
        for layer, factors in entries
        for half, weight in (("A", factors.down), ("B", factors.up))
    }


def _configuration(entries: Entries) -> str:
    """Returns PEFT's configuration of each component, as JSON."""
    parts = dict.fromkeys(layer.part for layer, _ in entries)
    fields = {
        f"{part}.{name}": value for part in parts for name, value in _fields(entries, part).items()
    }
    return json.dumps(fields, sort_keys=True)


def _fields(entries: Entries, part: str) -> dict[str, Any]:
    strengths = {
        layer.name: Strength(factors.rank, factors.alpha)
        for layer, factors in entries
        if layer.part == part
    }
    return configured(strengths, part)


def _kohya(entries: Entries) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for layer, factors in entries:
        tensors[f"{layer.flat}.lora_down.weight"] = factors.down
        tensors[f"{layer.flat}.lora_up.weight"] = factors.up
        tensors[f"{layer.flat}.alpha"] = torch.tensor(factors.alpha)
    return tensors


def _peft_name(layer: Published) -> str:
    """Returns the name of a layer in its network, where PEFT looks for it.

    transformers omits `text_model` since 5.6, except in an encoder with a projection.
    """
    return layer.name.removeprefix("text_model.") if layer.part == "text_encoder" else layer.name


def _write_peft(entries: Entries, folder: Path, metadata: Mapping[str, str]) -> None:
    """Writes a folder as PEFT's `save_pretrained` does; of several components, one for each."""
    parts = dict.fromkeys(layer.part for layer, _ in entries)
    for part in parts:
        below = folder / part if len(parts) > 1 or part != "unet" else folder
        tensors = {
            f"{PEFT}{_peft_name(layer)}.lora_{half}.weight": weight
            for layer, factors in entries
            if layer.part == part
            for half, weight in (("A", factors.down), ("B", factors.up))
        }
        fields: dict[str, Any] = {
            "peft_type": "LORA",
            "task_type": None,
            "base_model_name_or_path": None,
            "inference_mode": True,
            "bias": "none",
            "lora_dropout": 0.0,
            **_fields(entries, part),
        }
        try:
            below.mkdir(parents=True, exist_ok=True)
            text = json.dumps(fields, indent=2, sort_keys=True)
            (below / CONFIG).write_text(f"{text}\n", "utf-8")
        except OSError as error:
            raise WeightsError(
                f"{below} cannot be written: {error.strerror}.", hint="Name another folder."
            ) from error
        write(tensors, below / WEIGHTS, metadata)
