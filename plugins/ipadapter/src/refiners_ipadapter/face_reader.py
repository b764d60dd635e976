"""Reads faces of a condition: numbers, or pictures in which faces are detected and cropped."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import ConditionError
from refiners_core.models.face import (
    Detector,
    FacePack,
    aligned_crop,
    default_detector,
    face_embeddings,
    face_pictures,
    is_face_picture,
    largest_face,
)
from refiners_core.picture import to_rows
from refiners_ipadapter.prompt import Rows

NORMED: Final = FacePack(
    name="buffalo_l",
    files=("det_10g.onnx", "w600k_r50.onnx"),
    extra="refiners-ipadapter[insightface]",
    is_normed=True,
)
"""The pack `buffalo_l` of insightface, of which FaceID reads normalised embeddings."""
RAW: Final = FacePack(name=NORMED.name, files=NORMED.files, extra=NORMED.extra, is_normed=False)
"""The same pack, of which FaceID Portrait Unnorm reads raw embeddings."""


class Face(NamedTuple):
    """The features of a face and its picture."""

    embedding: Float[Tensor, " width"]
    """The embedding, of length 1 or raw."""
    crop: Float[Tensor, "1 3 height width"] | None = None
    """The aligned crop in 0...1, for an adapter that reads it."""


@dataclass(frozen=True)
class FaceReader:
    """Reads faces for an adapter."""

    adapter: str
    """The name of the adapter, for messages."""
    pack: FacePack
    """The face models that the adapter was trained with."""
    detector: Detector | None
    """The detector of the user; None for one that is made from the pack."""
    crop: int = 0
    """The side of the aligned crop in pixels; 0 for an adapter that reads numbers alone."""

    def rows(self, value: Any, pictures: Any = None, needs_crops: bool = True) -> Rows:
        """Returns the faces of each generated picture: a `Face`, or pixels to detect one in.

        Args:
            value: A face, one per generated picture, or lists of several for each.
            pictures: The aligned crops of faces that are given as numbers.
            needs_crops: Whether such crops are required, if the adapter reads any.

        Raises:
            ConditionError: A face cannot be read, or a crop or the detector is missing.
        """
        rows = (
            [self._row(item) for item in value]
            if _is_nested(value)
            else [[face] for face in self._row(value)]
        )
        faces = [face for row in rows for face in row]
        if any(isinstance(face, Tensor) for face in faces):
            if self.detector is None:
                default_detector(self.adapter, self.pack)
            return rows
        return self._with_crops(rows, pictures) if self.crop and needs_crops else rows

    def faces(self, items: Sequence[Any]) -> list[Face | None]:
        """Returns faces, of which those in pictures are detected; None for no face.

        Raises:
            ConditionError: No face is found in a picture.
        """
        return [self._detected(item) if isinstance(item, Tensor) else item for item in items]

    def _row(self, value: Any) -> list[Any]:
        embeddings = face_embeddings(value, self.adapter, self.pack)
        return face_pictures(value) if embeddings is None else [Face(row) for row in embeddings]

    def _with_crops(self, rows: Rows, pictures: Any) -> Rows:
        if pictures is None:
            raise ConditionError(
                f"{self.adapter} is given a face as numbers, but not its picture.",
                hint=f'Pass "picture": the face aligned and cropped to {self.crop} x {self.crop} '
                "pixels, beside the face; or give the face as a picture.",
            )
        crops = iter(to_rows(pictures))
        count, faces = len(to_rows(pictures)), sum(map(len, rows))
        if count not in (1, faces):
            raise ConditionError(
                f"{self.adapter} is given {count} pictures for {faces} faces.",
                hint="Pass one, or one for each face.",
            )
        single = next(crops) if count == 1 else None
        return [
            [face._replace(crop=next(crops) if single is None else single) for face in row]
            for row in rows
        ]

    def _detected(self, pixels: Float[Tensor, "3 height width"]) -> Face:
        detector = self.detector or default_detector(self.adapter, self.pack)
        face = largest_face(pixels, detector, self.adapter, self.pack)
        rows = face_embeddings(face.embedding, self.adapter, self.pack)
        assert rows is not None, "an embedding is numbers"
        (embedding,) = rows
        if not self.crop:
            return Face(embedding)
        return Face(embedding, aligned_crop(pixels, face.keypoints, self.crop)[None])


def _is_nested(value: Any) -> bool:
    """Whether a value lists several faces for each generated picture."""
    if not isinstance(value, list | tuple) or not value:
        return False
    first = value[0]
    if not isinstance(first, list | tuple) or not first:
        return False
    return is_face_picture(first) or not isinstance(first[0], float | int)
