"""The metadata of a trained file: ModelSpec 1.0.1 of Stability AI."""

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from refiners.choose.variant import made_from
from refiners.recognition.recogniser import ARCHITECTURE, TRAINING

from refiners_core import Adapter, Model
from refiners_core.models.diffusion import LatentDiffusion
from refiners_train.config.schema import Config

ARCHITECTURES: Final[Mapping[str, str]] = {
    "sd15": "stable-diffusion-v1",
    "sdxl": "stable-diffusion-xl-v1-base",
}
"""The names of bases in ModelSpec; others keep theirs."""
PREDICTIONS: Final[Mapping[str, str]] = {"eps": "epsilon", "v": "v", "x0": "sample"}
"""The names of predictions in ModelSpec."""
BASE: Final = "refiners.base"
"""The key under which the base is listed as JSON: its name, and the sha256 of its files."""


def model_spec(config: Config, model: Model, adapter: Adapter, name: str) -> dict[str, str]:
    """Returns the metadata of a file. It has no date, so that equal trainings give equal bytes.

    Args:
        config: The configuration.
        model: The base.
        adapter: The adapter.
        name: The name of the result.
    """
    result = config.result
    plugin = made_from[adapter]
    notes = {
        "modelspec.sai_model_spec": "1.0.1",
        ARCHITECTURE: f"{ARCHITECTURES.get(model.base, model.base)}/{plugin.name}",
        "modelspec.implementation": "diffusers",
        "modelspec.title": result.title or name,
        "modelspec.trigger_phrase": result.trigger,
        "modelspec.author": result.author,
        "modelspec.license": result.license,
        BASE: json.dumps({"name": model.base, "files": base_files(model)}, sort_keys=True),
        TRAINING: json.dumps(_settings(config), sort_keys=True),
    }
    if isinstance(model, LatentDiffusion):
        width, height = model.sides
        notes["modelspec.resolution"] = f"{width}x{height}"
        notes["modelspec.prediction_type"] = PREDICTIONS[model.sampler.schedule.prediction]
    return {key: value for key, value in notes.items() if value}


def base_files(model: Model) -> dict[str, str]:
    """Returns the sha256 of each file of a base, by its role or name."""
    return {} if model.origin is None else dict(model.origin(model).files)


def _settings(config: Config) -> dict[str, Any]:
    tables: dict[str, Any] = msgspec.to_builtins(config)
    data = {key: value for key, value in tables["data"].items() if key not in ("source", "options")}
    return {"adapter": tables["adapter"], "data": data, "train": tables["train"]}
