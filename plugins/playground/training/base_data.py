"""The pictures that the base is trained on: latents and tokens of captions, as tables on a device.

A table is drawn once, by all processor cores, and cached in the runs folder.
"""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from random import Random

import numpy as np
import torch
from jaxtyping import Float, Int
from model import FILES, build_model
from refiners_playground.curriculum import lesson, lesson_caption
from refiners_playground.picture import draw_pictures
from run import RUNS, WEIGHTS
from torch import Tensor

from refiners_core.models.diffusion import LatentDiffusion

CAPTIONS = 6
"""The captions of each scene; each leaves out other parts."""
CHUNK = 512


@dataclass(frozen=True)
class Table:
    """Latents and captions of the pictures of all kinds, kind after kind."""

    latents: Float[Tensor, "scenes channels side side"]
    tokens: Int[Tensor, "scenes captions tokens"]
    counts: Mapping[str, int]
    """The number of scenes of each kind, in order."""

    def to(self, device: torch.device) -> "Table":
        """Moves the tensors to a device."""
        return Table(self.latents.to(device), self.tokens.to(device), self.counts)


def load_table(model: LatentDiffusion, counts: Mapping[str, int]) -> Table:
    """Returns the scenes of each kind; draws and encodes them unless they are cached.

    Args:
        model: The model, whose autoencoder and tokenizer are used, on its device.
        counts: The number of scenes of each kind.
    """
    files = [WEIGHTS / FILES["autoencoder"][0], *sorted((WEIGHTS / "tokenizer").iterdir())]
    marks = "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    mark = hashlib.sha256(f"{sorted(counts.items())} {CAPTIONS} {marks}".encode()).hexdigest()[:12]
    path = RUNS / "tables" / f"{mark}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(_make(model, counts), path)
    latents, tokens = torch.load(path, weights_only=True, map_location="cpu")
    return Table(latents, tokens, dict(counts))


def _make(model: LatentDiffusion, counts: Mapping[str, int]) -> tuple[Tensor, Tensor]:
    jobs = [
        (kind, start, min(start + CHUNK, count))
        for kind, count in counts.items()
        for start in range(0, count, CHUNK)
    ]
    device = model.autoencoder.device
    latents: list[Tensor] = []
    tokens: list[Tensor] = []
    # A fresh process has neither the parent's device nor its threads.
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for pixels, ids in pool.map(_drawn, *zip(*jobs, strict=True)):
            with torch.no_grad():
                latents.append(
                    model.encode(torch.from_numpy(pixels).to(device).float() / 255).cpu().half()
                )
            tokens.append(torch.from_numpy(ids).view(len(pixels), CAPTIONS, -1))
    return torch.cat(latents), torch.cat(tokens)


def _drawn(kind: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws some pictures of a kind in bytes, and writes the tokens of their captions."""
    torch.set_num_threads(1)
    pictures = [lesson(kind, index) for index in range(start, stop)]
    random = Random(f"caption {kind} {start}")
    captions = [lesson_caption(kind, each, random) for each in pictures for _ in range(CAPTIONS)]
    tokens = _reader().tokenize(captions, {}).ids[0].short()
    return (draw_pictures(pictures) * 255).round().byte().numpy(), tokens.numpy()


@cache
def _reader() -> LatentDiffusion:
    return build_model()
