"""Trains the recogniser on freshly drawn pictures: about ten minutes on one core, or seconds on a
GPU (`--device cuda`)."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import torch
from loop import Recipe, train
from refiners_playground.face import Face
from refiners_playground.picture import Picture, draw_pictures
from refiners_playground.random_scene import (
    SOFT,
    canonical_scene,
    filled_scene,
    inked,
    pair_scene,
    placed_scene,
    random_face,
    sized_scene,
    subject_scene,
)
from refiners_playground.recogniser import (
    GRID,
    ITEM_WORDS,
    PICTURE_WORDS,
    Recogniser,
    agreement,
    pair_agreement,
)
from refiners_playground.scene import Item, Scene, draw, held_out_scenes
from run import arguments
from torch import Tensor
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits, cross_entropy, pad
from weight_file import save_plain

HELD_OUT_SEED = 1_000_003
SPREAD = 0.8
"""The deviation of an object's target score around its centre, in cells."""
MOST = 2
"""The objects of a scene in training."""
INKED, SUBJECTS = 0.08, 0.12


def sample(random: Random) -> Picture:
    """Returns a random picture of any kind: one in seven a face, one in three of two objects."""
    lot = random.random()
    if lot < 0.14:
        return random_face(random)
    if lot < 0.45:
        return dressed(pair_scene(random, patterned=0.35), random)
    if lot < 0.60:
        return dressed(canonical_scene(random), random)
    if lot < 0.68:
        return dressed(filled_scene(random), random)
    if lot < 0.74:
        return dressed(sized_scene(random), random)
    return dressed(placed_scene(random, patterned=0.4, textured=0.2), random)


def dressed(scene: Scene, random: Random) -> Scene:
    """Returns a scene, sometimes with the shape that is held out, in ink or with soft outlines."""
    if random.random() < SUBJECTS:
        row = random.randrange(len(scene.items))
        items = list(scene.items)
        items[row] = replace(items[row], shape=subject_scene(random).items[0].shape)
        scene = replace(scene, items=tuple(items))
    lot = random.random()
    if lot < INKED:
        return inked(scene)
    return replace(scene, style="soft") if lot < INKED + SOFT else scene


def worsened(pixels: Tensor) -> Tensor:
    """Blurs half of the pictures and adds noise, as generated pictures are not crisp."""
    blurred = avg_pool2d(pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = torch.rand(len(pixels), 1, 1, 1) * (torch.rand(len(pixels), 1, 1, 1) < 0.5)
    noise = torch.randn_like(pixels) * 0.05 * torch.rand(len(pixels), 1, 1, 1)
    tint = 0.03 * torch.randn(len(pixels), 3, 1, 1)
    return pixels.lerp(blurred, share) + noise + tint


def _numbers(item: Item | None) -> list[float]:
    """Returns centre, radius and words of an object; no object lies far outside."""
    if item is None:
        return [99.0, 99.0, 0.5, *(0.0 for _ in ITEM_WORDS)]
    words = (float(known.index(getattr(item, name))) for name, known in ITEM_WORDS.items())
    return [(item.x + 1) * GRID / 2 - 0.5, (item.y + 1) * GRID / 2 - 0.5, item.radius, *words]


def loss_of(values: dict[str, Tensor], pictures: Sequence[Picture]) -> Tensor:
    """Returns the loss of the recogniser's values for pictures.

    The target score of a cell falls off with the distance of the nearest object, whose words and
    place the cell learns as strongly as it scores.
    """
    items = [() if isinstance(picture, Face) else picture.items for picture in pictures]
    rows = [
        [_numbers(things[rank] if rank < len(things) else None) for rank in range(MOST)]
        for things in items
    ]
    x, y, radius, *words = torch.tensor(rows).view(-1, MOST, 3 + len(ITEM_WORDS), 1, 1).unbind(2)
    line = torch.arange(float(GRID))
    dx, dy = x - line.view(1, 1, 1, -1), y - line.view(1, 1, -1, 1)
    nearness, owner = (-(dx.square() + dy.square()) / (2 * SPREAD**2)).exp().max(1, keepdim=True)

    def owned(field: Tensor) -> Tensor:
        return field.expand(-1, -1, GRID, GRID).gather(1, owner).squeeze(1)

    weight = (nearness * (nearness > 0.1)).squeeze(1)
    weight = weight / weight.sum().clamp(min=1)
    loss = 20 * binary_cross_entropy_with_logits(values["score"], nearness)
    place = torch.stack([owned(dx), owned(dy), owned(radius)], 1)
    error = (values["place"] - place).abs() * torch.tensor([1.0, 1.0, 4.0]).view(1, 3, 1, 1)
    loss = loss + 2 * (error.sum(1) * weight).sum()
    for name, field in zip(ITEM_WORDS, words, strict=True):
        losses = cross_entropy(values[name], owned(field).long(), reduction="none")
        loss = loss + 2 * (losses * weight).sum()
    truths = [picture_words(picture) for picture in pictures]
    for name, known in PICTURE_WORDS.items():
        wanted = [known.index(truth[name]) if name in truth else -100 for truth in truths]
        if any(index >= 0 for index in wanted):
            target = torch.tensor(wanted)
            losses = cross_entropy(values[name], target, ignore_index=-100)
            loss = loss + (losses if name == "background" else 0.5 * losses)
    return loss


def picture_words(picture: Picture) -> dict[str, str]:
    """Returns the words of a whole picture that are true of it."""
    if isinstance(picture, Face):
        return {"background": picture.background, "subject": "face", "hair": picture.hair}
    return {"background": picture.background, "style": picture.style, "subject": "objects"}


def main() -> None:
    """Trains, measures on held-out scenes, writes fp16 weights."""
    options = arguments(__doc__ or "", steps=3000, batch=64, measure_every=500)
    torch.manual_seed(0)
    recogniser = Recogniser().to(memory_format=torch.channels_last)
    held_out = Random(HELD_OUT_SEED)
    measured = [placed_scene(held_out, patterned=0.25) for _ in range(512)]
    measured += held_out_scenes()
    pairs = [pair_scene(held_out, held_out=True) for _ in range(512)]

    def batch_loss(step: int, random: Random) -> Tensor:
        pictures = [sample(random) for _ in range(options.batch)]
        return loss_of(recogniser(worsened(draw_pictures(pictures))), pictures)

    def measure() -> dict[str, float]:
        shares = agreement(recogniser, draw(measured), measured)
        outcomes = pair_agreement(recogniser.read_scenes(draw(pairs)), pairs)
        return shares | {f"pairs: {k}": sum(hits) / len(hits) for k, hits in outcomes.items()}

    train("recogniser", recogniser, Recipe(muon=4e-3, adam=2e-3), batch_loss, measure, options)
    save_plain(recogniser, "recogniser.safetensors")


if __name__ == "__main__":
    main()
