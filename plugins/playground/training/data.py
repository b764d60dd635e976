"""Scenes with their latents, which are encoded once and cached in the runs folder."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

import torch
from model import FILES, build_model
from refiners_playground.random_scene import canonical_scene, inked, placed_scene, varied_scene
from refiners_playground.scene import Scene, draw
from run import RUNS, WEIGHTS
from torch import Tensor

KINDS: Mapping[str, tuple[Callable[[Random], Scene], int]] = {
    "canonical": (canonical_scene, 1),
    "varied": (varied_scene, 2),
    "placed": (placed_scene, 3),
    "inked canonical": (lambda random: inked(canonical_scene(random)), 4),
    "inked varied": (lambda random: inked(varied_scene(random)), 5),
}
"""The function that makes random scenes of each kind, and its seed."""


@dataclass(frozen=True)
class Pictures:
    """Scenes and the latents of their pictures, in the same order."""

    scenes: list[Scene]
    latents: Tensor

    def sample(self, random: Random, count: int) -> tuple[list[Scene], Tensor]:
        """Returns random scenes and their latents in float32."""
        rows = [random.randrange(len(self.scenes)) for _ in range(count)]
        return [self.scenes[row] for row in rows], self.latents[rows].float()


def load_pictures(kind: str, count: int) -> Pictures:
    """Returns `count` scenes of a kind; encodes them unless this autoencoder's are cached."""
    make, seed = KINDS[kind]
    random = Random(seed)
    scenes = [make(random) for _ in range(count)]
    digest = hashlib.sha256((WEIGHTS / FILES["autoencoder"][0]).read_bytes()).hexdigest()[:12]
    path = RUNS / "latents" / f"{kind.replace(' ', '-')}-{count}-{digest}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(_encode(scenes), path)
    return Pictures(scenes, torch.load(path, weights_only=True))


@torch.no_grad()
def _encode(scenes: list[Scene]) -> Tensor:
    model = build_model("autoencoder")
    batches = [scenes[start : start + 64] for start in range(0, len(scenes), 64)]
    return torch.cat([model.encode(draw(batch)).half() for batch in batches])
