"""Trains a DINO encoder of pictures without labels: four minutes on one core, seconds on a GPU.

A student matches a teacher, its own running mean, on other crops of the same picture
(arXiv:2104.14294, section 3).
"""

import math
from collections.abc import Sequence
from random import Random

import torch
from loop import Recipe, train
from refiners_playground.config import DINO_ENCODER
from refiners_playground.curriculum import lesson
from refiners_playground.lesson.example import as_float, in_bytes
from refiners_playground.picture import Picture, draw_pictures
from refiners_playground.recogniser import labels
from refiners_playground.scene import Scene, draw, held_out_scenes
from run import arguments
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, log_softmax, normalize, one_hot, softmax
from weight_file import save_half

from refiners_core.models.dino import DINO_KEYS, DinoImageEncoder

KINDS = ("canonical", "placed", "fills", "varied", "places")
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""The normalisation of DINOv2's pixels."""
GLOBAL, LOCAL = ((2, 64, (0.5, 1.0)), (4, 32, (0.15, 0.5)))
"""The number, the side in pixels and the shares of the area of large and small crops."""
RECOLOURED = 0.5
"""The share (0...1) of crops with other colours; without them, colours alone tell pictures apart
and shapes are not learnt."""
PROTOTYPES, BOTTLENECK = 512, 64
TEACHER_TEMPERATURE, STUDENT_TEMPERATURE = 0.04, 0.1
MOMENTUM, CENTRE_MOMENTUM = 0.99, 0.9
RIDGE = 0.01


class Projected(nn.Module):
    """An encoder and the head that compares its class token with prototypes."""

    def __init__(self) -> None:
        super().__init__()
        width = DINO_ENCODER.width
        self.encoder = DinoImageEncoder(DINO_ENCODER)
        self.head = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, BOTTLENECK),
        )
        self.prototypes = nn.Parameter(torch.randn(PROTOTYPES, BOTTLENECK))

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns the similarity of pictures in 0...1 to each prototype, `(batch, prototypes)`."""
        projected = normalize(self.head(self.features(pixels)), dim=-1)
        return projected @ normalize(self.prototypes, dim=-1).T

    def features(self, pixels: Tensor) -> Tensor:
        """Returns the class token of pictures in 0...1, `(batch, width)`."""
        return self._tokens(pixels)[:, 0]

    def patches(self, pixels: Tensor) -> Tensor:
        """Returns the tokens of the patches of pictures in 0...1, `(batch, patches, width)`."""
        return self._tokens(pixels)[:, 1:]

    def _tokens(self, pixels: Tensor) -> Tensor:
        mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, DEVIATION))
        return self.encoder((pixels - mean) / deviation)


class Pair(nn.Module):
    """A student and its teacher, whose weights are a running mean of the student's."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = Projected(), Projected()
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.register_buffer("centre", torch.zeros(PROTOTYPES))

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Moves the teacher towards the student."""
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast, 1 - momentum)

    @torch.no_grad()
    def wanted(self, pixels: Tensor) -> Tensor:
        """Returns what the teacher makes of large crops, `(batch, prototypes)`, and centres it."""
        similar = self.teacher(pixels)
        shares = softmax((similar - self.centre) / TEACHER_TEMPERATURE, -1)
        self.centre.lerp_(similar.mean(0), 1 - CENTRE_MOMENTUM)
        return shares


def crops(pixels: Tensor, size: int, areas: tuple[float, float]) -> Tensor:
    """Returns a random square crop of each picture, resized.

    Args:
        pixels: Pictures in 0...1, `(batch, 3, height, width)`.
        size: The side of the result in pixels.
        areas: The least and greatest share of the area.
    """
    count = len(pixels)
    side = (areas[0] + (areas[1] - areas[0]) * torch.rand(count)).sqrt()
    shift = (2 * torch.rand(count, 2) - 1) * (1 - side[:, None])
    places = torch.zeros(count, 2, 3)
    places[:, 0, 0] = places[:, 1, 1] = side
    places[:, :, 2] = shift
    grid = affine_grid(places, [count, 3, size, size], align_corners=False)
    return grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def recoloured(pixels: Tensor) -> Tensor:
    """Returns pictures, some of them with channels exchanged or inverted."""
    count = len(pixels)
    orders = torch.rand(count, 3).argsort(1)[:, :, None, None].expand_as(pixels)
    others = pixels.gather(1, orders)
    inverted = torch.rand(count, 3, 1, 1) < 0.5
    others = torch.where(inverted, 1 - others, others)
    return torch.where(torch.rand(count, 1, 1, 1) < RECOLOURED, others, pixels)


def pool(count: int) -> Tensor:
    """Returns pictures as bytes, of the kinds in turn."""
    pictures: list[Picture] = [lesson(KINDS[i % len(KINDS)], i) for i in range(count)]
    return in_bytes(draw_pictures, pictures)


@torch.no_grad()
def accuracy(
    student: Projected, known: Sequence[Scene], scenes: Sequence[Scene]
) -> dict[str, float]:
    """Returns the share (0...1) of scenes whose attributes a linear map reads off their patches.

    The map is fitted to `known` by ridge regression.
    """
    near, seen = (student.patches(draw(group)).flatten(1).double() for group in (known, scenes))
    mean = near.mean(0)
    near, seen = near - mean, seen - mean
    gram = near @ near.T
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    truths, wanted = labels(known), labels(scenes)
    shares: dict[str, float] = {}
    for name in ("shape", "colour", "background"):
        answers = one_hot(truths[name]).double()
        offset = answers.mean(0)
        scores = seen @ (near.T @ torch.linalg.solve(gram, answers - offset)) + offset
        shares[name] = (scores.argmax(1) == wanted[name]).float().mean().item()
    return shares


def main() -> None:
    """Trains, measures what a linear map reads of held-out scenes, writes fp16 weights."""
    options = arguments(__doc__ or "", steps=1500, batch=64, pool=20000, measure_every=500)
    torch.manual_seed(0)
    pictures = pool(options.pool).to(torch.get_default_device())
    pair = Pair()
    student = pair.student
    known = [scene for i in range(2000) if isinstance(scene := lesson("canonical", i), Scene)]
    measured = list(held_out_scenes())

    def loss_of(step: int, random: Random) -> Tensor:
        if step:
            momentum = 1 - (1 - MOMENTUM) * (math.cos(math.pi * step / options.steps) + 1) / 2
            pair.follow(momentum)
        rows = torch.randint(len(pictures), (options.batch,))
        pixels = as_float(pictures[rows])
        large, small = (
            [recoloured(crops(pixels, size, areas)) for _ in range(count)]
            for count, size, areas in (GLOBAL, LOCAL)
        )
        wanted = pair.wanted(torch.cat(large)).chunk(len(large))
        views = [
            *student(torch.cat(large)).chunk(len(large)),
            *student(torch.cat(small)).chunk(len(small)),
        ]
        losses = [
            -(target * log_softmax(view / STUDENT_TEMPERATURE, -1)).sum(-1).mean()
            for i, target in enumerate(wanted)
            for j, view in enumerate(views)
            if i != j
        ]
        return torch.stack(losses).mean()

    recipe = Recipe(muon=2e-3, adam=1e-3, warm=100, decay=0.99)
    train(
        "dino_encoder",
        pair,
        recipe,
        loss_of,
        lambda: accuracy(student, known, measured),
        options,
    )
    save_half(student.encoder, "dino_encoder.safetensors", DINO_KEYS)


if __name__ == "__main__":
    main()
