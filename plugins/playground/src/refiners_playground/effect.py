"""Measures the effect of prompts and adapters, as shares and scores over held-out scenes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core import Adapter, Condition
from refiners_core.models.diffusion import LatentDiffusion
from refiners_playground.caption import plain_caption
from refiners_playground.edge import edge_agreement, edges
from refiners_playground.ink_reader import read_ink
from refiners_playground.random_scene import placed_scene
from refiners_playground.recogniser import agreement, load_recogniser
from refiners_playground.scene import Scene, draw, held_out_scenes

BATCH = 8


@dataclass(frozen=True)
class Settings:
    """The settings of generations in a measurement."""

    steps: int = 20
    guidance: float = 4.0
    seed: int = 0


def named_scenes(count: int) -> list[Scene]:
    """Returns held-out scenes of one large, centred object, the same for every run."""
    return Random(7).sample(list(held_out_scenes()), count)


def placed_scenes(count: int) -> list[Scene]:
    """Returns scenes whose object has any size and place; captions name neither."""
    random = Random(11)
    return [placed_scene(random, held_out=True) for _ in range(count)]


def prompt_effect(model: LatentDiffusion, count: int, settings: Settings) -> dict[str, float]:
    """Returns the shares (0...1) of held-out prompts whose shape, colour and background appear."""
    scenes = named_scenes(count)
    pixels = generated(model, [plain_caption(scene) for scene in scenes], settings)
    return agreement(load_recogniser(), pixels, scenes)


def control_effect(
    model: LatentDiffusion,
    control: Adapter,
    count: int,
    settings: Settings,
    scale: float = 1.0,
    against: int = 0,
) -> float:
    """Returns the mean F1 (0...1, within 1 pixel) between requested and generated edges.

    Args:
        model: The model, wearing the adapter.
        control: The adapter.
        count: The number of pictures.
        settings: The settings of the generations.
        scale: The strength of the adapter.
        against: Compares each picture with the edges of the scene this many places on: 0 for its
            own, another number for the rate by chance.
    """
    scenes = placed_scenes(count)
    requested = edges(draw(scenes))
    prompts = [plain_caption(scene) for scene in scenes]
    pixels = generated(model, prompts, settings, {control: requested}, scale)
    return float(edge_agreement(edges(pixels), requested.roll(against, 0)).mean())


def image_effect(
    model: LatentDiffusion, prompter: Adapter, count: int, settings: Settings, scale: float = 1.0
) -> dict[str, float]:
    """Returns the shares (0...1) of pictures that match their image prompt, attribute by attribute.

    The text prompt is empty.
    """
    scenes = named_scenes(count)
    pixels = generated(model, [""] * count, settings, {prompter: draw(scenes)}, scale)
    return agreement(load_recogniser(), pixels, scenes)


def style_effect(
    model: LatentDiffusion, style: Adapter, count: int, settings: Settings, scale: float = 1.0
) -> dict[str, float]:
    """Returns the shares (0...1) of held-out prompts that are drawn in ink, and as prompted.

    The prompts name shape, colour and background, but no style. The program that reads ink gives
    `inked`, and `colour` and `background` in either style. The recogniser, which was trained on
    flat scenes, gives `shape`. At scale 0 the pictures are those of the bare model.
    """
    scenes = named_scenes(count)
    prompts = [plain_caption(scene) for scene in scenes]
    pixels = generated(model, prompts, settings, {style: None}, scale)
    pairs = list(zip(read_ink(pixels), scenes, strict=True))
    return {
        "inked": sum(reading.is_inked for reading, _ in pairs) / count,
        "colour": sum(reading.colour == scene.items[0].colour for reading, scene in pairs) / count,
        "background": sum(r.background == scene.background for r, scene in pairs) / count,
        "shape": agreement(load_recogniser(), pixels, scenes)["shape"],
    }


def generated(
    model: LatentDiffusion,
    prompts: Sequence[str],
    settings: Settings,
    conditions: Mapping[Adapter, Tensor | None] | None = None,
    scale: float = 1.0,
) -> Float[Tensor, "count 3 height width"]:
    """Generates a picture per prompt, in batches; a condition has a row per prompt.

    Adapters that the model wears but that have no condition are skipped.
    """
    skipped: dict[Adapter, Any] = dict.fromkeys(model.adapters)
    pictures: list[Tensor] = []
    for start, rows in _batches(len(prompts)):
        active = {
            adapter: Condition(None if value is None else value[rows], scale=scale)
            for adapter, value in (conditions or {}).items()
        }
        pictures.append(
            model.generate(
                list(prompts[rows]),
                conditions=skipped | active,
                steps=settings.steps,
                guidance=settings.guidance,
                seed=settings.seed + start,
                output="tensor",
                progress=False,
            )
        )
    return torch.cat(pictures)


def _batches(count: int) -> Iterator[tuple[int, slice]]:
    for start in range(0, count, BATCH):
        yield start, slice(start, min(start + BATCH, count))
