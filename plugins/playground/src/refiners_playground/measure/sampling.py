"""The held-out scenes of measurements, and the pictures that are generated for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any, Final, cast

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core import Adapter, Condition
from refiners_core.measure import Settings
from refiners_core.models.diffusion import LatentDiffusion
from refiners_playground.recogniser import ATTRIBUTES, Recogniser, attributes, load_recogniser
from refiners_playground.scene import SIZES, Scene, held_out_scenes

BASE: Final = "playground"
STEPS: Final = 20
GUIDANCE: Final = 4.0


def named_scenes(count: int) -> list[Scene]:
    """Returns held-out scenes of one large, centred object, the same for every run.

    Above the number of held-out combinations they come again.
    """
    scenes = list(held_out_scenes())
    shuffled = Random(7).sample(scenes, len(scenes))
    return [shuffled[row % len(shuffled)] for row in range(count)]


def placed_scenes(count: int) -> list[Scene]:
    """Returns the same objects on the same backgrounds in any size and place, which captions do
    not name."""
    random = Random(11)
    return [_placed(scene, random) for scene in named_scenes(count)]


def _placed(scene: Scene, random: Random) -> Scene:
    size = random.choices(tuple(SIZES.values()), (0.2, 0.4, 0.4))[0]
    radius = size * random.uniform(0.95, 1.05)
    room = 0.96 - radius
    [item] = scene.items
    place = {
        "radius": radius,
        "x": random.uniform(-room, room),
        "y": random.uniform(-room, room),
        "angle": random.uniform(-0.15, 0.15),
    }
    return replace(scene, items=(replace(item, **place),))


@torch.no_grad()
def generated(
    model: LatentDiffusion,
    prompts: Sequence[str],
    settings: Settings,
    adapter: Adapter | None = None,
    value: Any = None,
    *,
    scale: float = 1.0,
    end: float = 1.0,
    batch: int = 0,
    **options: Any,
) -> Float[Tensor, "count 3 height width"]:
    """Generates a picture in 0...1 for each prompt, in batches.

    Adapters that the model wears but that are neither this one nor in `settings.beside` are left
    out.

    Args:
        model: The model.
        prompts: The prompts.
        settings: The settings of the run.
        adapter: The adapter, which the model wears; None to sample without it.
        value: Its condition, with a row for each prompt; None if it takes none.
        scale: The strength of the adapter.
        end: The share of the steps after which it ends.
        batch: The size of batches; by default that of `settings`.
        **options: Other arguments of `generate`.
    """
    rest: dict[str, Any] = {
        "steps": settings.steps or STEPS,
        "guidance": GUIDANCE,
        "output": "tensor",
        "progress": False,
        "recipe": False,
    } | options
    pictures: list[Tensor] = []
    for rows in batches(len(prompts), batch or settings.batch):
        active: dict[Adapter, Any] = dict.fromkeys(model.adapters)
        for other, beside in settings.beside.items():
            active[other] = Condition(_rows(beside.rows, rows), scale=beside.scale)
        if adapter is not None:
            active[adapter] = Condition(_rows(value, rows), scale=scale * settings.scale, end=end)
        seeds = list(range(settings.seed + rows.start, settings.seed + rows.stop))
        pictures.append(model.generate(list(prompts[rows]), conditions=active, seed=seeds, **rest))
    return torch.cat(pictures).float().cpu()


def _rows(values: Any, rows: slice) -> Any:
    """Returns the rows of a condition, or of each of its inputs."""
    if isinstance(values, Mapping):
        named = cast("Mapping[str, Any]", values)
        return {name: _rows(value, rows) for name, value in named.items()}
    return None if values is None else values[rows]


def batches(count: int, size: int) -> Iterator[slice]:
    """Yields the rows of each batch."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


@cache
def recogniser() -> Recogniser:
    """Returns the trained recogniser."""
    return load_recogniser()


def recognised(pixels: Tensor, scenes: Sequence[Scene]) -> dict[str, list[float]]:
    """Returns for each attribute whether it is recognised as that of the scene: 1 or 0."""
    pairs = list(zip(recogniser().read(pixels), map(attributes, scenes), strict=True))
    return {
        name: [float(reading[name] == truth[name]) for reading, truth in pairs]
        for name in ATTRIBUTES
    }


def all_of(*outcomes: Sequence[float]) -> list[float]:
    """Returns 1 for each sample with all of some outcomes."""
    return [float(all(row)) for row in zip(*outcomes, strict=True)]
