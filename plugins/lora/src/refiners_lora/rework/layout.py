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
from refiners_lora.layer_name import Place
from refiners_lora.lora_file import CONFIG
from refiners_lora.method.low_rank import LowRank, low_rank
from refiners_lora.rework.source import WEIGHTS
from refiners_lora.rework.target import Factors
from refiners_lora.role import PEFT
from refiners_lora.saved import published, settings

LAYOUTS: Final = ("diffusers", "kohya", "peft")
"""The layouts; the first is the default."""

Entries = Sequence[tuple[Place, Factors]]
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
        changes = [(place.published, _built(place, factors)) for place, factors in entries]
        write(published(changes), path, {**metadata, **settings(changes)})


def _built(place: Place, factors: Factors) -> LowRank:
    return low_rank(place.seat, factors.down, factors.up, factors.alpha)


def _kohya(entries: Entries) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for place, factors in entries:
        name = place.published.flat
        weights = _built(place, factors).published()
        tensors[f"{name}.lora_down.weight"] = weights["down"]
        tensors[f"{name}.lora_up.weight"] = weights["up"]
        tensors[f"{name}.alpha"] = torch.tensor(factors.alpha)
    return tensors


def _write_peft(entries: Entries, folder: Path, metadata: Mapping[str, str]) -> None:
    """Writes a folder as PEFT's `save_pretrained` does; of several components, one for each."""
    parts = dict.fromkeys(place.part for place, _ in entries)
    for part in parts:
        below = folder / part if len(parts) > 1 or part != "unet" else folder
        mine = [(place, factors) for place, factors in entries if place.part == part]
        tensors: dict[str, Tensor] = {}
        for place, factors in mine:
            weights = _built(place, factors).published()
            for half, role in (("A", "down"), ("B", "up")):
                tensors[f"{PEFT}{place.name}.lora_{half}.weight"] = weights[role]
        strengths = {place.name: Strength(f.rank, f.alpha) for place, f in mine}
        fields: dict[str, Any] = {
            "peft_type": "LORA",
            "task_type": None,
            "base_model_name_or_path": None,
            "inference_mode": True,
            "bias": "none",
            "lora_dropout": 0.0,
            **configured(strengths, part),
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
