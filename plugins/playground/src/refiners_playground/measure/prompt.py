"""Measures of the playground itself: how often pictures show what held-out prompts name."""

from __future__ import annotations

from abc import abstractmethod
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


class ScenePrompts(Measure):
    """Prompts of one object, whose parts are read from the pictures; a subclass makes them."""

    base = BASE
    files = (WEIGHTS,)

    @abstractmethod
    def scenes(self, count: int) -> list[Scene]:
        """Returns held-out scenes."""

    @abstractmethod
    def prompt(self, scene: Scene) -> str:
        """Returns the prompt of a scene."""

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        scenes = self.scenes(count)
        prompts = [self.prompt(scene) for scene in scenes]
        pixels = generated(model, prompts, settings, adapter)
        hits = recognised(pixels, scenes)
        hits["place"] = all_of(hits["column"], hits["row"])
        return Samples({f.name: hits[f.name] for f in self.figures}, prompts, pixels)


class PlainPrompts(ScenePrompts):
    """Prompts of one large, plain object."""

    summary = "held-out prompts of one large, plain object"
    figures = (
        Figure("shape", least=0.98),
        Figure("colour", least=0.98),
        Figure("background", least=0.98),
    )

    def scenes(self, count: int) -> list[Scene]:
        return named_scenes(count)

    def prompt(self, scene: Scene) -> str:
        return plain_caption(scene)


class Fills(ScenePrompts):
    """Prompts of one large object with a fill, each as often as the others or nearly so."""

    summary = "held-out prompts of one large object with its fill"
    figures = (
        Figure("fill", least=0.85),
        Figure("shape", least=0.85),
        Figure("colour"),
    )

    def scenes(self, count: int) -> list[Scene]:
        random = Random(19)
        return [filled_scene(random, held_out=True) for _ in range(count)]

    def prompt(self, scene: Scene) -> str:
        [item] = scene.items
        return f"a large {item.fill} {item.colour} {item.shape} {_ground(scene)}"


class Sizes(ScenePrompts):
    """Prompts of one object with its size and place."""

    summary = "held-out prompts of one object with its size and its place"
    figures = (
        Figure("size", least=0.85),
        Figure("place", least=0.85),
        Figure("shape"),
        Figure("colour"),
    )

    def scenes(self, count: int) -> list[Scene]:
        random = Random(23)
        return [sized_scene(random, held_out=True) for _ in range(count)]

    def prompt(self, scene: Scene) -> str:
        [item] = scene.items
        return f"a {item.size} {item.colour} {item.shape} {place(item)} {_ground(scene)}"


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


def _ground(scene: Scene) -> str:
    return f"on {article(scene.background)} background"
