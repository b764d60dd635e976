"""Measures of adapters that read a face: who is shown, and where the features are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from random import Random
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core import Adapter
from refiners_core.measure import Figure, Measure, Samples, Settings
from refiners_playground.caption import plain_caption
from refiners_playground.face import (
    HELD_OUT_PERIOD,
    PARAMETERS,
    Face,
    draw_faces,
    identities,
    keypoint_map,
    keypoints,
)
from refiners_playground.identity_reader import (
    WEIGHTS,
    IdentityReader,
    IdentityReading,
    load_identity_reader,
)
from refiners_playground.measure.reader import decoded
from refiners_playground.measure.sampling import BASE, generated, recogniser
from refiners_playground.random_scene import posed_face
from refiners_playground.recogniser import WEIGHTS as RECOGNISER

IDENTITY: Final = "identity, mean R2"
KEPT: Final = "identity after a round trip, mean R2"
POINTS: Final = "keypoints, error in pixels"
HAIR: Final = "hair as prompted"


def mean_r2(rows: Sequence[Sequence[float]]) -> float:
    """Returns the coefficient of determination, the mean of those of the numbers of an identity.

    Args:
        rows: For each sample the numbers that are read, and then those that are true.
    """
    table = np.asarray(rows)
    read, true = table[:, : len(PARAMETERS)], table[:, len(PARAMETERS) :]
    rest = ((read - true) ** 2).sum(0)
    spread = ((true - true.mean(0)) ** 2).sum(0)
    return float((1 - rest / np.maximum(spread, 1e-9)).mean())


class Identity(Measure):
    """Whether the person on a picture is the one whose embedding the adapter reads.

    The embedding is that of another picture of the person, in another pose and with other hair.
    Nobody who is measured was in a training. A network reads the ten numbers of an identity and the
    keypoints from the generated pictures.

    Args:
        adapter: The name of the adapter.
        figures: The figures beside the identity.
        least: The smallest R2 with the adapter; 1 is a perfect reading, 0 the mean of all people.
        has_points: Whether the adapter also reads keypoints.
    """

    base = BASE
    summary = "held-out people; prompts name hair and background"
    files = (WEIGHTS, RECOGNISER)

    def __init__(
        self, adapter: str, *figures: Figure, least: float | None, has_points: bool = False
    ) -> None:
        self.adapter, self.has_points = adapter, has_points
        who = Figure(
            IDENTITY,
            is_share=False,
            least=least,
            most_without=0.1,
            together=0.85,
            statistic=mean_r2,
        )
        self.figures = (who, *figures)

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        faces, others = people(count)
        prompts = [plain_caption(face) for face in faces]
        value = self._value(faces, others)
        pixels = generated(model, prompts, settings, adapter, value)
        read, true = reading(pixels), identities(faces)
        gaps = (read.points - keypoints(faces)).norm(dim=2).mean(1)
        hair = [reading["hair"] for reading in recogniser().read_pictures(pixels)]
        outcomes = {
            IDENTITY: [
                [*a, *b] for a, b in zip(read.parameters.tolist(), true.tolist(), strict=True)
            ],
            POINTS: gaps.tolist(),
            HAIR: [float(name == face.hair) for name, face in zip(hair, faces, strict=True)],
        }
        kept = {figure.name: outcomes[figure.name] for figure in self.figures}
        return Samples(kept, prompts, pixels)

    def condition(self, count: int) -> Mapping[str, Tensor]:
        """Returns the faces of the people that are measured."""
        return self._value(*people(count))

    def _value(self, faces: Sequence[Face], others: Sequence[Face]) -> dict[str, Tensor]:
        value = {"face": reader().embed(draw_faces(others))}
        return value | ({"keypoints": keypoint_map(faces)} if self.has_points else {})


class DrawnFaces(Measure):
    """The reader of identities, on drawn faces of people that it was not trained on, and on the
    same faces after a round trip through the latents."""

    base = BASE
    summary = "the reader of identities on drawn faces"
    files = (WEIGHTS,)
    figures = (
        Figure(IDENTITY, is_share=False, least=0.9, statistic=mean_r2),
        Figure(KEPT, is_share=False, least=0.9, statistic=mean_r2),
        Figure(POINTS, is_share=False, most=1),
    )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        faces, _ = people(count)
        pixels, true = draw_faces(faces), identities(faces).tolist()
        read, kept = reading(pixels), reading(decoded(model, pixels, settings))
        numbers = [
            [[*a, *b] for a, b in zip(either.parameters.tolist(), true, strict=True)]
            for either in (read, kept)
        ]
        gaps = (read.points - keypoints(faces)).norm(dim=2).mean(1)
        return Samples({IDENTITY: numbers[0], KEPT: numbers[1], POINTS: gaps.tolist()})


def people(count: int) -> tuple[list[Face], list[Face]]:
    """Returns a picture of each of some held-out people, and another picture of each."""
    random = Random(41)
    numbers = [(row + 1) * HELD_OUT_PERIOD - 1 for row in range(count)]
    faces = [posed_face(random, number) for number in numbers]
    return faces, [posed_face(random, number) for number in numbers]


@torch.no_grad()
def reading(pixels: Float[Tensor, "batch 3 64 64"]) -> IdentityReading:
    """Returns what the reader of identities reads of faces in pictures in 0...1."""
    return reader()(pixels)


@cache
def reader() -> IdentityReader:
    """Returns the trained reader of identities."""
    return load_identity_reader()


def face_id() -> Identity:
    """Returns the measure of `ip-adapter-faceid`."""
    return Identity("ip-adapter-faceid", Figure(HAIR), least=0.5)


def instantid() -> Identity:
    """Returns the measure of `instantid`."""
    points = Figure(POINTS, is_share=False, most=3)
    return Identity("instantid", points, Figure(HAIR), least=0.75, has_points=True)
