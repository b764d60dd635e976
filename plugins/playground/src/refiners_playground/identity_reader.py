"""Reads who a drawn face shows: an embedding, ten numbers of the identity, five keypoints.

It plays the part of insightface's models for adapters of faces. The embedding has length 1 and is
trained to be that of the person in any pose, with any hair and background, as those of ArcFace are
(arXiv 1801.07698, section 2).
"""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from refiners_playground.convolution import Convolution
from refiners_playground.face import PARAMETERS, POINTS
from refiners_playground.scene import SIZE

WIDTH = 64
"""The numbers of an embedding."""
WEIGHTS = Path(__file__).parent / "weights" / "identity_reader.safetensors"


class IdentityReading(NamedTuple):
    """What is read of faces."""

    embedding: Float[Tensor, "batch 64"]
    """The person, of length 1."""
    parameters: Float[Tensor, "batch 10"]
    """The numbers of the identity in the order of `PARAMETERS`, about 0...1."""
    points: Float[Tensor, "batch 5 2"]
    """The keypoints in the order of `POINTS`, x and y in pixels of a picture 64 pixels wide."""


class IdentityReader(nn.Module):
    """Six convolutions; the embedding and the keypoints are linear in their features."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            Convolution(3, 24, stride=2),
            Convolution(24, 48, stride=2),
            Convolution(48, 72),
            Convolution(72, 80, stride=2),
            Convolution(80, 80),
            Convolution(80, 80, stride=2),
            nn.Flatten(),
        )
        self.embedding = nn.Linear(80 * 16, WIDTH)
        self.parameters_of = nn.Sequential(nn.Linear(WIDTH, 96), nn.ReLU(), nn.Linear(96, 10))
        self.points = nn.Linear(80 * 16, 2 * len(POINTS))

    def forward(self, pixels: Float[Tensor, "batch 3 64 64"]) -> IdentityReading:
        """Reads faces in pictures in 0...1."""
        features = self.features(pixels * 2 - 1)
        embedding = normalize(self.embedding(features), dim=1)
        points = SIZE / 2 * (1 + self.points(features).view(-1, len(POINTS), 2))
        parameters = self.parameters_of(embedding * WIDTH**0.5)
        return IdentityReading(embedding, parameters, points)

    @torch.no_grad()
    def embed(self, pixels: Float[Tensor, "batch 3 64 64"]) -> Float[Tensor, "batch 64"]:
        """Returns the embeddings of faces in pictures in 0...1, each of length 1."""
        return self(pixels).embedding


def load_identity_reader(path: Path = WEIGHTS) -> IdentityReader:
    """Loads the trained reader in float32."""
    with torch.device("cpu"):
        reader = IdentityReader()
    reader.load_state_dict(load_file(path))
    return reader.eval().requires_grad_(False)


def determination(
    read: Float[Tensor, "batch 10"], true: Float[Tensor, "batch 10"]
) -> dict[str, float]:
    """Returns for each of `PARAMETERS` the share of its variance that is read (R2, at most 1)."""
    error = (read - true).square().sum(0)
    spread = (true - true.mean(0)).square().sum(0)
    return dict(zip(PARAMETERS, (1 - error / spread).tolist(), strict=True))
