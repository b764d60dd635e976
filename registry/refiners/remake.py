"""Makes a picture again from its recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from refiners.load import load_adapter, load_model
from refiners.recipe.form import Recipe
from refiners.recipe.pieces import Pieces, find_pieces
from refiners.recipe.supply import InputCondition

if TYPE_CHECKING:
    from torch import Tensor

    from refiners_core import Model

_ALONE: Final = ("prompt", "count", "seed")
"""The arguments with which a caller asks for other pictures than those of the recipe."""
_STEPS: Final = ("steps", "timesteps", "sigmas")
"""The arguments that set the steps, of which one can be given."""


def regenerate(
    recipe: Recipe | str | os.PathLike[str],
    *,
    conditions: Mapping[str, Any] | None = None,
    model: str | None = None,
    device: Any = None,
    dtype: Any = None,
    offline: bool | None = None,
    lock: str | Path | None = None,
    **changes: Any,
) -> Any:
    """Makes a picture again from its recipe, with the installed packages.

    On the same kind of device and with the same versions, the picture is the same bit for bit.

    Args:
        recipe: A recipe, or the picture that carries it.
        conditions: The pictures and files that the recipe names by their hashes, or others in
            their place, by the names that `refiners info picture.png` prints: pictures, tensors or
            paths. Those beside the picture and in the working folder are found by name and hash.
        model: The name or the path of another model, or of that of a recipe without a known one.
        device: The device of the weights.
        dtype: The dtype of the weights; that of the recipe by default.
        offline: Whether to stay offline; None reads REFINERS_OFFLINE and HF_HUB_OFFLINE.
        lock: The lock that pins the model and the adapters; None reads REFINERS_LOCK.
        **changes: Arguments of `generate` in place of those of the recipe, such as `seed=4`.

    Returns:
        The picture; with another prompt, count or seed, what `generate` returns for this picture's
        own arguments, without the others of its generation.

    Raises:
        OptionError: The model, an adapter, a picture or a file is missing; the error lists all.
        RefinersError: As `load_model`, `load_adapter` and `generate` raise it.

    Warns:
        Notice: A version, a file or a picture differs from that of the recipe.

    Example:
        >>> image = regenerate("heart.png", seed=8)  # doctest: +SKIP
    """
    pieces = find_pieces(recipe, conditions=conditions, model=model)
    return remake(pieces, changes, device=device, dtype=dtype, offline=offline, lock=lock)


def remake(
    pieces: Pieces,
    changes: Mapping[str, Any],
    *,
    device: Any = None,
    dtype: Any = None,
    offline: bool | None = None,
    lock: str | Path | None = None,
) -> Any:
    """Loads the model and the adapters of a recipe, and generates.

    Args:
        pieces: Everything that the recipe needs.
        changes: The arguments of `generate` that replace those of the recipe.
        device: The device of the weights.
        dtype: The dtype of the weights; that of the recipe by default.
        offline: Whether to stay offline.
        lock: The lock that pins the model and the adapters.

    Returns:
        The picture; with another prompt, count or seed, what `generate` returns for this picture's
        own arguments, without the others of its generation.
    """
    from refiners_core import Condition

    recipe = pieces.recipe
    is_alone = any(name in changes for name in _ALONE)
    arguments = _arguments(pieces, changes, is_alone)
    model: Any = load_model(pieces.model, device=device, dtype=dtype, offline=offline, lock=lock)
    if dtype is None:
        _cast(model, pieces.dtypes)
    conditions: dict[Any, Condition] = {}
    for part in pieces.parts:
        options: dict[str, Any] = {"offline": offline, "lock": lock, "file": part.file}
        adapter = load_adapter(part.name, model, **options, **part.options)
        condition = Condition(**{**part.condition, "value": _conditions(part.condition)})
        if is_alone:
            value, scale = _alone(condition.value, recipe), _alone(condition.scale, recipe)
            condition = replace(condition, value=value, scale=scale)
        conditions[adapter] = condition
    result = model.generate(**arguments, conditions=conditions)
    if is_alone or not isinstance(result, list):
        return result
    return result[min(recipe.image, len(result) - 1)]


def _arguments(pieces: Pieces, changes: Mapping[str, Any], is_alone: bool) -> dict[str, Any]:
    """Returns the arguments of `generate`: the caller's, then those of the recipe."""
    recipe = pieces.recipe
    arguments = dict(pieces.arguments)
    if is_alone:
        alone = {"prompt": recipe.prompt, "negative_prompt": recipe.negative_prompt, "count": 1}
        arguments |= alone | ({} if recipe.seed is None else {"seed": recipe.seed})
        values = {name: arguments[name] for name in ("image", "mask") if name in arguments}
        arguments |= {name: _alone(value, recipe) for name, value in values.items()}
    if any(changes.get(name) is not None for name in _STEPS):
        arguments = {name: value for name, value in arguments.items() if name not in _STEPS}
    arguments |= changes
    sampler = arguments.get("sampler")
    if isinstance(sampler, dict):
        from refiners_core.models.diffusion.sampler_data import sampler_of

        arguments["sampler"] = sampler_of(sampler)
    if (last := recipe.ended_after) is not None:

        def goes_on(step: int, latents: Tensor) -> bool:
            return step + 1 < last

        arguments.setdefault("callback", goes_on)
    return arguments


def _conditions(condition: Mapping[str, Any]) -> Any:
    """Returns the value of a condition, with the conditions of inputs that are recorded as such."""
    from refiners_core import Condition

    value = condition.get("value")
    if not isinstance(value, dict):
        return value
    items: dict[str, Any] = value
    return {
        name: Condition(**item._asdict()) if isinstance(item, InputCondition) else item
        for name, item in items.items()
    }


def _alone(value: Any, recipe: Recipe) -> Any:
    """Returns the part of a value for this picture, where each of its generation has one."""
    from refiners_core import Condition

    prompts, count = recipe.arguments.prompt, recipe.arguments.count
    total = count * (1 if isinstance(prompts, str) else len(prompts))
    if isinstance(value, dict):
        items: dict[str, Any] = value
        return {name: _alone(item, recipe) for name, item in items.items()}
    if isinstance(value, Condition):
        return replace(value, value=_alone(value.value, recipe))
    if not isinstance(value, list) or not len(value) == total > recipe.image:
        return value
    each = cast("list[Any]", value)
    is_schedule = all(isinstance(item, list) for item in each)  # pairs of progress and scale
    return each if is_schedule or total == 1 else each[recipe.image]


def _cast(model: Model, dtypes: Mapping[str, str]) -> None:
    """Casts each component to the dtype that it had."""
    import torch

    for name, dtype in dtypes.items():
        wanted: Any = getattr(torch, dtype, None)
        part: Any = dict(model.named_children()).get(name)
        if part is not None and isinstance(wanted, torch.dtype) and part.dtype != wanted:
            part.to(wanted)
