"""Trains the reader of identities on drawn faces: a few minutes on one core, seconds on a GPU."""

from random import Random

import torch
from loop import Recipe, train
from refiners_playground.curriculum import lesson
from refiners_playground.face import (
    PARAMETERS,
    Face,
    draw_faces,
    held_out_identities,
    identities,
    keypoints,
)
from refiners_playground.identity_reader import IdentityReader
from refiners_playground.lesson.example import as_float, in_bytes
from refiners_playground.random_scene import COLOUR_NAMES
from refiners_playground.scene import SIZE
from run import WEIGHTS, arguments
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import mse_loss
from train_recogniser import worsened

IDENTITY_WEIGHT, POINT_WEIGHT = 10.0, 20.0


def held_out_faces(count: int) -> list[Face]:
    """Returns faces of people that are held out from training, in random poses."""
    random = Random(17)
    faces: list[Face] = []
    for identity in held_out_identities(count):
        hair, background = random.sample(COLOUR_NAMES, 2)
        x, y, angle = (random.uniform(-limit, limit) for limit in (0.08, 0.06, 0.12))
        faces.append(Face(identity, hair, background, x, y, random.uniform(0.9, 1.05), angle))
    return faces


def determination(read: Tensor, true: Tensor) -> Tensor:
    """Returns the share of the variance of each column that a reading explains (R squared)."""
    return 1 - (read - true).square().mean(0) / true.var(0, unbiased=False)


@torch.no_grad()
def accuracy(reader: IdentityReader, faces: list[Face]) -> dict[str, float]:
    """Returns R squared of each number of identities, their mean, and the error of keypoints."""
    read, points = reader(draw_faces(faces))
    shares = determination(read, identities(faces))
    error = (points - keypoints(faces)).norm(dim=-1).mean()
    named = dict(zip(PARAMETERS, shares.tolist(), strict=True))
    return {**named, "mean": shares.mean().item(), "keypoints, pixels": error.item()}


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
        read, places = reader(worsened(as_float(pictures[rows])))
        error = mse_loss(places, points[rows]) / SIZE**2
        return IDENTITY_WEIGHT * mse_loss(read, numbers[rows]) + POINT_WEIGHT * error

    recipe = Recipe(muon=4e-3, adam=2e-3)
    train("identity_reader", reader, recipe, loss_of, lambda: accuracy(reader, measured), options)
    half = {name: value.half().contiguous().cpu() for name, value in reader.state_dict().items()}
    kept = {name: value for name, value in half.items() if "num_batches" not in name}
    save_file(kept, WEIGHTS / "identity_reader.safetensors")


if __name__ == "__main__":
    main()
