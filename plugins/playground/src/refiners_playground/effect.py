"""How far prompts and adapters get their way: shares and scores over held-out scenes."""

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
    """How pictures are made for a measurement."""

    steps: int = 20
    guidance: float = 4.0
    seed: int = 0


def named_scenes(count: int) -> list[Scene]:
    """Returns held-out scenes of one large, centred object, the same for every run."""
    return Random(7).sample(list(held_out_scenes()), count)


def placed_scenes(count: int) -> list[Scene]:
    """Returns scenes whose object has any size and place, neither of which its caption tells."""
    random = Random(11)
    return [placed_scene(random, held_out=True) for _ in range(count)]


def prompt_effect(model: LatentDiffusion, count: int, settings: Settings) -> dict[str, float]:
    """Returns the shares (0...1) of held-out prompts whose shape, colour, background appear."""
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
    """Returns the mean F1 (0...1, 1 pixel forgiven) between the edges asked for and those made.

    Args:
        model: What generates, wearing the adapter.
        control: The adapter.
        count: How many pictures.
        settings: How they are made.
        scale: How strongly the adapter acts.
        against: How many scenes further on the edges are taken that the pictures are compared
            with: 0 for those asked for, another number for what chance would give.
    """
    scenes = placed_scenes(count)
    wanted = edges(draw(scenes))
    prompts = [plain_caption(scene) for scene in scenes]
    pixels = generated(model, prompts, settings, {control: wanted}, scale)
    return float(edge_agreement(edges(pixels), wanted.roll(against, 0)).mean())


def image_effect(
    model: LatentDiffusion, prompter: Adapter, count: int, settings: Settings, scale: float = 1.0
) -> dict[str, float]:
    """Returns the shares (0...1) of pictures that take after the picture they are prompted with.

    The text prompt is empty.
    """
    scenes = named_scenes(count)
    pixels = generated(model, [""] * count, settings, {prompter: draw(scenes)}, scale)
    return agreement(load_recogniser(), pixels, scenes)


def style_effect(
    model: LatentDiffusion, style: Adapter, count: int, settings: Settings, scale: float = 1.0
) -> dict[str, float]:
    """Returns the shares (0...1) of held-out prompts whose pictures are `inked`, and of those whose
    named `colour` and `background` are read by the same program, whatever the style.

    The prompts name shape, colour and background, nothing of a style. The `shape` is read by the
    network, which was trained on flat scenes. At scale 0 the pictures are the bare model's.
    """
    scenes = named_scenes(count)
    prompts = [plain_caption(scene) for scene in scenes]
    pixels = generated(model, prompts, settings, {style: None}, scale)
    pairs = list(zip(read_ink(pixels), scenes, strict=True))
    return {
        "inked": sum(found.is_inked for found, _ in pairs) / count,
        "colour": sum(found.colour == scene.items[0].colour for found, scene in pairs) / count,
        "background": sum(found.background == scene.background for found, scene in pairs) / count,
        "shape": agreement(load_recogniser(), pixels, scenes)["shape"],
    }


def generated(
    model: LatentDiffusion,
    prompts: Sequence[str],
    settings: Settings,
    conditions: Mapping[Adapter, Tensor | None] | None = None,
    scale: float = 1.0,
) -> Float[Tensor, "count 3 height width"]:
    """Returns a picture for each prompt, in batches; a condition has a row for each prompt.

    Adapters that the model wears and that are not mentioned are left out.
    """
    unsaid: dict[Adapter, Any] = dict.fromkeys(model.adapters)
    pictures: list[Tensor] = []
    for start, rows in _batches(len(prompts)):
        said = {
            adapter: Condition(None if value is None else value[rows], scale=scale)
            for adapter, value in (conditions or {}).items()
        }
        pictures.append(
            model.generate(
                list(prompts[rows]),
                conditions=unsaid | said,
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
