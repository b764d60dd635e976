"""Measures of the playground itself: how often pictures show what held-out prompts name."""

from __future__ import annotations

from random import Random
from typing import Any

from refiners_core import Adapter
from refiners_core.measure import Figure, Measure, Samples, Settings
from refiners_playground.caption import article, place, plain_caption
from refiners_playground.face import HELD_OUT_PERIOD
from refiners_playground.measure.sampling import (
    BASE,
    all_of,
    generated,
    named_scenes,
    recognised,
    recogniser,
)
from refiners_playground.random_scene import filled_scene, pair_scene, posed_face, sized_scene
from refiners_playground.recogniser import WEIGHTS, pair_agreement
from refiners_playground.scene import Scene


class PlainPrompts(Measure):
    """Prompts of one large, plain object."""

    base = BASE
    summary = "held-out prompts of one large, plain object"
    files = (WEIGHTS,)
    figures = (
        Figure("shape", least=0.98),
        Figure("colour", least=0.98),
        Figure("background", least=0.98),
    )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        scenes = named_scenes(count)
        prompts = [plain_caption(scene) for scene in scenes]
        pixels = generated(model, prompts, settings, adapter)
        hits = recognised(pixels, scenes)
        return Samples({f.name: hits[f.name] for f in self.figures}, prompts, pixels)


class Fills(Measure):
    """Prompts of one large object with a fill, each as often as the others or nearly so."""

    base = BASE
    summary = "held-out prompts of one large object with its fill"
    files = (WEIGHTS,)
    figures = (
        Figure("fill", least=0.85),
        Figure("shape", least=0.85),
        Figure("colour"),
    )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        random = Random(19)
        scenes = [filled_scene(random, held_out=True) for _ in range(count)]
        prompts = [f"a large {_filled(scene)} {_ground(scene)}" for scene in scenes]
        pixels = generated(model, prompts, settings, adapter)
        hits = recognised(pixels, scenes)
        return Samples({f.name: hits[f.name] for f in self.figures}, prompts, pixels)


class Sizes(Measure):
    """Prompts of one object with its size and place."""

    base = BASE
    summary = "held-out prompts of one object with its size and its place"
    files = (WEIGHTS,)
    figures = (
        Figure("size", least=0.85),
        Figure("place", least=0.85),
        Figure("shape"),
        Figure("colour"),
    )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        random = Random(23)
        scenes = [sized_scene(random, held_out=True) for _ in range(count)]
        prompts = [_placed(scene) for scene in scenes]
        pixels = generated(model, prompts, settings, adapter)
        hits = recognised(pixels, scenes)
        hits["place"] = all_of(hits["column"], hits["row"])
        return Samples({f.name: hits[f.name] for f in self.figures}, prompts, pixels)


class Pairs(Measure):
    """Prompts of two objects in one of four relations; both are held out.

    A picture counts as having both objects if exactly two are read, of the named shapes in the
    named colours; the relation is that of these objects.
    """

    base = BASE
    summary = "held-out prompts of two objects, each with its colour, and their relation"
    files = (WEIGHTS,)
    figures = (
        Figure("both objects", least=0.85),
        Figure("relation", least=0.85),
        Figure("background"),
    )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        random = Random(31)
        scenes = [pair_scene(random, patterned=0.0, held_out=True) for _ in range(count)]
        prompts = [plain_caption(scene) for scene in scenes]
        pixels = generated(model, prompts, settings, adapter)
        hits = pair_agreement(recogniser().read_scenes(pixels), scenes)
        names = {"both objects": "bound", "relation": "relation", "background": "background"}
        outcomes = {name: [float(hit) for hit in hits[key]] for name, key in names.items()}
        return Samples(outcomes, prompts, pixels)


class Faces(Measure):
    """Prompts of a face with the colours of its hair and of the background."""

    base = BASE
    summary = "prompts of a face with the colours of its hair and of the background"
    files = (WEIGHTS,)
    figures = (Figure("a face", least=0.85), Figure("hair", least=0.85), Figure("background"))

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        random = Random(37)
        faces = [posed_face(random, (row + 1) * HELD_OUT_PERIOD - 1) for row in range(count)]
        prompts = [plain_caption(face) for face in faces]
        pixels = generated(model, prompts, settings, adapter)
        pairs = list(zip(recogniser().read_pictures(pixels), faces, strict=True))
        outcomes = {
            "a face": [float(read["subject"] == "face") for read, _ in pairs],
            "hair": [float(read["hair"] == face.hair) for read, face in pairs],
            "background": [float(read["background"] == face.background) for read, face in pairs],
        }
        return Samples(outcomes, prompts, pixels)


def _filled(scene: Scene) -> str:
    [item] = scene.items
    return f"{item.fill} {item.colour} {item.shape}"


def _placed(scene: Scene) -> str:
    [item] = scene.items
    return f"a {item.size} {item.colour} {item.shape} {place(item)} {_ground(scene)}"


def _ground(scene: Scene) -> str:
    return f"on {article(scene.background)} background"
