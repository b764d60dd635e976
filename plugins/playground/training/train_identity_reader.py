"""Trains the reader of identities on drawn faces: a few minutes on one core, seconds on a GPU."""

from random import Random

import torch
from loop import Recipe, train
from refiners_playground.curriculum import lesson
from refiners_playground.face import (
    Face,
    draw_faces,
    identities,
    keypoints,
)
from refiners_playground.identity_reader import IdentityReader, determination
from refiners_playground.lesson.example import as_float, in_bytes
from refiners_playground.random_scene import posed_face, random_identity
from refiners_playground.scene import SIZE
from run import arguments
from torch import Tensor
from torch.nn.functional import mse_loss
from train_recogniser import worsened
from weight_file import save_plain

IDENTITY_WEIGHT, POINT_WEIGHT = 10.0, 20.0


def held_out_faces(count: int) -> list[Face]:
    """Returns faces of people that are held out from training, in random poses."""
    random = Random(17)
    return [posed_face(random, random_identity(random, held_out=True)) for _ in range(count)]


@torch.no_grad()
def accuracy(reader: IdentityReader, faces: list[Face]) -> dict[str, float]:
    """Returns how well faces are read.

    Returns:
        `r2` and `lowest r2`: the mean and the least over the numbers of identities. `pixels`: the
        mean error of keypoints.
    """
    reading = reader(draw_faces(faces))
    shares = determination(reading.parameters, identities(faces))
    error = (reading.points - keypoints(faces)).norm(dim=2).mean()
    least = min(shares.values())
    return {"r2": sum(shares.values()) / len(shares), "lowest r2": least, "pixels": error.item()}


def main() -> None:
    """Trains, measures on held-out people, writes fp16 weights."""
    options = arguments(__doc__ or "", steps=1200, batch=64, pool=24000, measure_every=400)
    torch.manual_seed(0)
    reader = IdentityReader()
    faces = [face for i in range(options.pool) if isinstance(face := lesson("faces", i), Face)]
    pictures = in_bytes(draw_faces, faces).to(torch.get_default_device())
    numbers, points = identities(faces), keypoints(faces)
    measured = held_out_faces(256)

    def loss_of(step: int, random: Random) -> Tensor:
        rows = torch.randint(len(pictures), (options.batch,))
        reading = reader(worsened(as_float(pictures[rows])))
        error = mse_loss(reading.points, points[rows]) / SIZE**2
        return IDENTITY_WEIGHT * mse_loss(reading.parameters, numbers[rows]) + POINT_WEIGHT * error

    recipe = Recipe(muon=4e-3, adam=2e-3)
    train("identity_reader", reader, recipe, loss_of, lambda: accuracy(reader, measured), options)
    save_plain(reader, "identity_reader.safetensors")


if __name__ == "__main__":
    main()
