"""Trains the reader of identities on freshly drawn faces: about six minutes on one core, or seconds
on a GPU (`--device cuda`).

Each batch has two pictures of every person. Besides the numbers and keypoints, the reader learns to
tell which two pictures show one person (arXiv 2002.05709, section 2.1).
"""

from random import Random

import torch
from loop import Recipe, train
from refiners_playground.face import Face, draw_faces, identities, keypoints
from refiners_playground.identity_reader import IdentityReader, determination
from refiners_playground.random_scene import posed_face, random_identity
from refiners_playground.scene import SIZE
from run import arguments
from torch import Tensor
from torch.nn.functional import cross_entropy, smooth_l1_loss
from train_recogniser import worsened
from weight_file import save_plain

HELD_OUT_SEED = 1_000_003
TEMPERATURE = 0.1
CONTRAST = 0.1
"""The weight of telling people apart."""


def pairs_of(random: Random, count: int, held_out: bool = False) -> list[Face]:
    """Returns pictures of `count` people, then other pictures of the same people."""
    people = [random_identity(random, held_out) for _ in range(count)]
    return [posed_face(random, person) for person in (*people, *people)]


def loss_of(reader: IdentityReader, faces: list[Face]) -> Tensor:
    """Returns the loss for pictures of people, followed by other pictures of the same people."""
    reading = reader(worsened(draw_faces(faces)))
    numbers = smooth_l1_loss(reading.parameters, identities(faces), beta=0.1)
    points = smooth_l1_loss(reading.points / SIZE, keypoints(faces) / SIZE, beta=0.02)
    first, second = reading.embedding.chunk(2)
    likeness = first @ second.T / TEMPERATURE
    same = torch.arange(len(first))
    contrast = cross_entropy(likeness, same) + cross_entropy(likeness.T, same)
    return 10 * numbers + 20 * points + CONTRAST * contrast


@torch.no_grad()
def accuracy(reader: IdentityReader, faces: list[Face]) -> dict[str, float]:
    """Returns how well pictures of people, followed by others of the same people, are read.

    Returns:
        `r2` and `lowest r2`: the mean and the least over the numbers. `pixels`: the mean error of
        keypoints. `recognised`: the share of people whose other picture has the nearest embedding.
    """
    reading = reader(draw_faces(faces))
    shares = determination(reading.parameters, identities(faces))
    gaps = (reading.points - keypoints(faces)).norm(dim=2)
    first, second = reading.embedding.chunk(2)
    nearest = (first @ second.T).argmax(1)
    return {
        "r2": sum(shares.values()) / len(shares),
        "lowest r2": min(shares.values()),
        "pixels": gaps.mean().item(),
        "recognised": (nearest == torch.arange(len(first))).float().mean().item(),
    }


def main() -> None:
    """Trains, measures on held-out people, writes fp16 weights."""
    options = arguments(__doc__ or "", steps=2500, batch=64, measure_every=500)
    torch.manual_seed(0)
    reader = IdentityReader().to(memory_format=torch.channels_last)
    measured = pairs_of(Random(HELD_OUT_SEED), 256, held_out=True)

    def batch_loss(step: int, random: Random) -> Tensor:
        return loss_of(reader, pairs_of(random, options.batch // 2))

    recipe = Recipe(muon=4e-3, adam=2e-3)
    train(
        "identity_reader", reader, recipe, batch_loss, lambda: accuracy(reader, measured), options
    )
    save_plain(reader, "identity_reader.safetensors")


if __name__ == "__main__":
    main()
