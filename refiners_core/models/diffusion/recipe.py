"""The recipe of a generation: everything from which its images can be made again.

A recipe is JSON. It has names, versions, numbers and hashes, never a path, and for pictures and
tensors their hashes only. `refiners.read_recipe` reads it.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import torch
from PIL import Image

from refiners_core.condition import Condition
from refiners_core.model import Model
from refiners_core.models.diffusion.callback import Callback
from refiners_core.models.diffusion.conditioning import AdapterCondition
from refiners_core.models.diffusion.preparation import (
    chosen_preprocessors,
    is_preprocessed,
    named_preprocessors,
)
from refiners_core.models.diffusion.sampler_data import sampler_data
from refiners_core.models.samplers import Sampler
from refiners_core.picture.digest import digest
from refiners_core.preprocessor import NamedPreprocessor
from refiners_core.recipe_image import RecipeImage
from refiners_core.scale import checked_scale, recorded_scale
from refiners_core.surgery.adapter import Adapter

VERSION: Final = 1
"""The version of the form of recipes."""
DISTRIBUTION: Final = "refiners-core"
COMPONENTS: Final = ("text_encoder", "unet", "autoencoder")
"""The components whose dtypes a recipe records."""


@dataclass(frozen=True)
class GenerationRecipe:
    """The checked arguments of one generation, as its recipe records them."""

    model: Any
    adapters: Sequence[AdapterCondition]
    """The adapters that act at some step, with their conditions as given."""
    arguments: Mapping[str, Any]
    """The other arguments of `generate`, with the values that were used and the drawn seeds."""
    values: Mapping[str, Any]
    """The arguments of which hashes are recorded: image, mask and latents; None where missing."""
    sampler: Sampler
    device: torch.device

    def facts(self) -> dict[str, Any]:
        """Returns the recipe of all images; hashes are computed here."""
        values = {name: digest(value) for name, value in self.values.items() if value is not None}
        return {
            "recipe": VERSION,
            "model": _origin(self.model) | {"base": self.model.base, "dtypes": self._dtypes()},
            "adapters": [
                {"key": key, **_adapter(item)}
                for key, item in zip(_keys(self.adapters), self.adapters, strict=True)
            ],
            "arguments": {**self.arguments, "sampler": sampler_data(self.sampler), **values},
            "made-with": {**_versions(), "device": self.device.type},
        }

    def _dtypes(self) -> dict[str, str]:
        parts = {name: getattr(self.model, name) for name in COMPONENTS}
        return {name: str(part.dtype).removeprefix("torch.") for name, part in parts.items()}


def with_recipes(
    images: Sequence[Image.Image], facts: Mapping[str, Any] | None, callback: Callback
) -> list[Image.Image]:
    """Returns images that carry their recipes.

    Args:
        images: The images of one generation, in order.
        facts: The facts of the generation; None to return the images as they are.
        callback: The function that may have ended it early.
    """
    if facts is None:
        return list(images)
    ended = {} if callback.ended_after is None else {"ended-after": callback.ended_after}
    recipes = [{**facts, "image": i, **ended} for i in range(len(images))]
    return [
        RecipeImage.of(image, json.dumps(recipe, allow_nan=False))
        for image, recipe in zip(images, recipes, strict=True)
    ]


def compact_seeds(seeds: Sequence[int]) -> int | list[int]:
    """Returns the first seed if the others count up from it, as `generate` does, or else all."""
    is_counted = all(seed == seeds[0] + i for i, seed in enumerate(seeds))
    return seeds[0] if is_counted else list(seeds)


def _keys(adapters: Sequence[AdapterCondition]) -> list[str]:
    """Returns the keys of adapters as in a new process, where numbers begin with the first."""
    counts: Counter[str] = Counter()
    keys: list[str] = []
    for adapter in (item.adapter for item in adapters):
        if re.fullmatch(rf"{re.escape(adapter.name)}(-\d+)?", adapter.key) is None:
            keys.append(adapter.key)
            continue
        counts[adapter.name] += 1
        number = counts[adapter.name]
        keys.append(adapter.name if number == 1 else f"{adapter.name}-{number}")
    return keys


def _adapter(item: AdapterCondition) -> dict[str, Any]:
    adapter, condition = item.adapter, item.condition
    facts = {"name": adapter.name, **_origin(adapter)}
    steps = len(item.strengths.steps) if item.strengths else 1
    scale = recorded_scale(checked_scale(condition.scale), steps)
    facts |= {"scale": digest(scale), "start": condition.start, "end": condition.end}
    chosen = chosen_preprocessors(adapter, condition) if is_preprocessed(condition) else {}
    if condition.value is not None:
        facts["condition"] = _recorded_value(condition, chosen)
    if condition.mask is not None:
        facts["mask"] = digest(condition.mask)
    return facts | _preprocessing(condition, chosen)


def _recorded_value(condition: Condition, chosen: Mapping[str, NamedPreprocessor]) -> Any:
    """Returns the record of a value; of an input that is itself a condition, with its fields."""
    value = condition.value
    if not isinstance(value, Mapping):
        return digest(value)
    explicit, inputs = named_preprocessors(condition), dict[str, Any]()
    for role, item in value.items():
        if not isinstance(item, Condition):
            inputs[str(role)] = digest(item, 1)
            continue
        scale = digest(recorded_scale(checked_scale(item.scale), 1))
        inputs[str(role)] = {"value": digest(item.value, 1), "scale": scale}
        if role in explicit:
            name = chosen[role].name
            inputs[str(role)]["preprocess"] = {"object": name} if callable(explicit[role]) else name
    return {"inputs": inputs}


def _preprocessing(condition: Condition, chosen: Mapping[str, NamedPreprocessor]) -> dict[str, Any]:
    """Returns the preprocessors of a condition: one id for all inputs, or True; and versions.

    Inputs that name their own preprocessor are recorded with it; the versions are all here.
    """
    how, explicit = condition.preprocess, named_preprocessors(condition)
    if callable(how):
        return {"preprocess": {"object": chosen[""].name}}
    named = [item for role, item in chosen.items() if not callable(explicit.get(role))]
    shared = {item.name for role, item in chosen.items() if role not in explicit}
    facts: dict[str, Any] = {}
    if how is not False:
        facts["preprocess"] = next(iter(shared)) if len(shared) == 1 else how
    if named:
        facts["preprocessors"] = {item.name: item.version for item in named}
    return facts


def _origin(part: Model | Adapter) -> dict[str, Any]:
    """Returns the origin of a model or an adapter; the name of its class if it has none."""
    if part.origin is None:
        return {"class": type(part).__name__}
    origin = part.origin(part)
    facts: dict[str, Any] = {"id": origin.id, "files": dict(origin.files)}
    if origin.version:
        facts["version"] = origin.version
    if origin.file:
        facts["file"] = origin.file
    if origin.options:
        facts["options"] = {name: digest(value) for name, value in origin.options.items()}
    return facts


@cache
def _versions() -> dict[str, str]:
    try:
        ours = version(DISTRIBUTION)
    except PackageNotFoundError:  # run from a folder that is not installed
        ours = "unknown"
    return {DISTRIBUTION: ours, "torch": torch.__version__}
