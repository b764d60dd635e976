"""Pictures with their latents, which are encoded once and cached in the runs folder."""

import hashlib
from dataclasses import dataclass
from random import Random

import torch
from model import FILES, build_model
from refiners_playground.curriculum import lesson
from refiners_playground.picture import Picture, draw_pictures
from run import RUNS, WEIGHTS
from torch import Tensor

BATCH, ACCELERATED_BATCH = 64, 1024
"""Pictures that are encoded at once, on the CPU and elsewhere."""


@dataclass(frozen=True)
class Pictures:
    """Scenes or faces and the latents of their pictures, in the same order."""

    scenes: list[Picture]
    latents: Tensor

    def sample(self, random: Random, count: int) -> tuple[list[Picture], Tensor]:
        """Returns random pictures and their latents in float32."""
        rows = [random.randrange(len(self.scenes)) for _ in range(count)]
        return [self.scenes[row] for row in rows], self.latents[rows].float()


def load_pictures(kind: str, count: int, first: int = 0) -> Pictures:
    """Returns pictures of a kind, on torch's default device; encodes them unless this autoencoder's
    latents are cached.

    Args:
        kind: A name in `refiners_playground.curriculum.KINDS`.
        count: The number of pictures.
        first: The index of the first picture; a range of indices is a data set.
    """
    pictures = [lesson(kind, first + index) for index in range(count)]
    digest = hashlib.sha256((WEIGHTS / FILES["autoencoder"][0]).read_bytes())
    digest.update(repr(pictures).encode())
    name = f"{kind.replace(' ', '-')}-{first}-{count}-{digest.hexdigest()[:12]}.pt"
    path = RUNS / "latents" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(encode(pictures), path)
    latents = torch.load(path, weights_only=True, map_location=torch.get_default_device())
    return Pictures(pictures, latents)


@torch.no_grad()
def encode(pictures: list[Picture]) -> Tensor:
    """Returns the latents (fp16) of pictures, drawn and encoded on torch's default device."""
    device = torch.get_default_device()
    model = build_model("autoencoder").to(device)
    step = BATCH if device.type == "cpu" else ACCELERATED_BATCH
    starts = range(0, len(pictures), step)
    batches = [model.encode(draw_pictures(pictures[start : start + step])) for start in starts]
    return torch.cat([batch.half() for batch in batches])
