"""Reads who a drawn face shows: an embedding, ten numbers of the identity, five keypoints.

It plays the part of insightface's models for adapters of faces.
"""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from refiners_playground.face import PARAMETERS, POINTS
from refiners_playground.scene import SIZE

WEIGHTS: Final = Path(__file__).parent / "weights" / "identity_reader.safetensors"
WIDTH: Final = 64
"""The numbers of an embedding."""
LENGTH: Final = 8.0
"""The Euclidean length of an embedding."""


class IdentityReading(NamedTuple):
    """Holds what is read of faces."""

    embedding: Float[Tensor, "batch 64"]
    """The person, of the same length for all."""
    parameters: Float[Tensor, "batch 10"]
    """The numbers of the identity in the order of `PARAMETERS`, about 0...1."""
    points: Float[Tensor, "batch 5 2"]
    """The keypoints in the order of `POINTS`, x and y in pixels of a picture 64 pixels wide."""


class IdentityReader(nn.Module):
    """Six convolutions; then an embedding, of which a linear map reads the ten numbers of an
    identity, and beside it the keypoints."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolved(3, 24, 2),
            *_convolved(24, 48, 2),
            *_convolved(48, 96, 2),
            *_convolved(96, 96, 1),
            *_convolved(96, 112, 2),
            nn.Flatten(),
        )
        self.embedding = nn.Linear(112 * 16, WIDTH)
        self.identity = nn.Linear(WIDTH, len(PARAMETERS))
        self.keypoints = nn.Linear(112 * 16, 2 * len(POINTS))

    def forward(self, pixels: Float[Tensor, "batch 3 64 64"]) -> IdentityReading:
        """Reads faces in pictures in 0...1."""
        features = self.features(pixels * 2 - 1)
        embedding = normalize(self.embedding(features), dim=-1) * LENGTH
        places = self.keypoints(features).unflatten(1, (len(POINTS), 2))
        return IdentityReading(embedding, self.identity(embedding) + 0.5, (places + 1) * (SIZE / 2))

    @torch.no_grad()
    def embed(self, pixels: Float[Tensor, "batch 3 64 64"]) -> Float[Tensor, "batch 64"]:
        """Returns embeddings of the faces in pictures in 0...1, all of the same length.

        They hold what tells one person from another; pose, hair and background change them little.
        """
        return self(pixels).embedding


class FaceDetector:
    """Finds the face of a picture, with the interface of `insightface.app.FaceAnalysis`.

    Adapters of faces take it as `detector=`, so that a picture can be their condition.

    Args:
        reader: The reader; the trained one by default.
    """

    def __init__(self, reader: IdentityReader | None = None) -> None:
        self.reader: Final = reader or load_identity_reader()
        self.det_model: Final = SimpleNamespace(input_size=(SIZE, SIZE))

    @torch.no_grad()
    def get(self, img: NDArray[np.uint8]) -> Sequence[SimpleNamespace]:
        """Returns the face of an image in BGR order, with `bbox`, `kps` and `embedding`."""
        height, width = img.shape[:2]
        levels = torch.from_numpy(np.ascontiguousarray(img[..., ::-1])).permute(2, 0, 1)
        pixels = interpolate(levels[None].float() / 255, (SIZE, SIZE), mode="area")
        read = self.reader(pixels)
        points = read.points[0] * torch.tensor([width / SIZE, height / SIZE])
        corners = torch.cat([points.amin(0), points.amax(0)])
        return [
            SimpleNamespace(
                bbox=corners.numpy(),
                kps=points.numpy(),
                embedding=read.embedding[0].numpy(),
            )
        ]


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


def _convolved(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
