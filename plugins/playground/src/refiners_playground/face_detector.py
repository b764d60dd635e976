"""Finds the face in a picture, with the interface of insightface that adapters of faces expect."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from refiners_playground.identity_reader import load_identity_reader
from refiners_playground.recogniser import load_recogniser
from refiners_playground.scene import SIZE


@dataclass(frozen=True)
class DetectedFace:
    """A face in a picture, under the names of insightface.

    Attributes:
        bbox: Left, top, right and bottom of the picture, which the face fills, in pixels.
        kps: The five keypoints, x and y in pixels of the picture.
        embedding: The person, 64 numbers of length 1.
    """

    bbox: NDArray[np.float32]
    kps: NDArray[np.float32]
    embedding: NDArray[np.float32]


class DetectionModel:
    """The input size that adapters set; a picture is always fitted to 64 x 64 pixels."""

    input_size: tuple[int, int] | None = None


class FaceDetector:
    """Detects one face in a picture of the playground; the recogniser tells faces from objects.

    Pass it to an adapter of faces, so that it takes pictures as well as embeddings:
    `refiners.load_adapter("instantid", model, detector=FaceDetector())`.
    """

    def __init__(self) -> None:
        self.det_model = DetectionModel()
        self.reader = load_identity_reader()
        self.recogniser = load_recogniser()

    @torch.no_grad()
    def get(self, img: NDArray[np.uint8]) -> list[DetectedFace]:
        """Returns the face in a picture, or an empty list.

        Args:
            img: A picture of any size in BGR order, `(height, width, 3)`.
        """
        height, width = img.shape[:2]
        pixels = torch.from_numpy(np.ascontiguousarray(img[..., ::-1])).permute(2, 0, 1) / 255
        fitted = interpolate(pixels[None], (SIZE, SIZE), mode="bilinear", antialias=True)
        if self.recogniser.read_pictures(fitted)[0]["subject"] != "face":
            return []
        reading = self.reader(fitted)
        points = reading.points[0] * torch.tensor([width / SIZE, height / SIZE])
        box = np.array([0, 0, width, height], np.float32)
        return [DetectedFace(box, points.numpy(), reading.embedding[0].numpy())]
