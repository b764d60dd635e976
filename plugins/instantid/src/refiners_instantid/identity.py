"""Reads the condition: the embeddings of faces, and pictures of their keypoints."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import ConditionError
from refiners_core.models.diffusion import GenerationRequest
from refiners_core.models.face import (
    Detector,
    Face,
    FacePack,
    default_detector,
    face_embeddings,
    face_pictures,
    largest_face,
)
from refiners_instantid.face_pack import ANTELOPE
from refiners_instantid.keypoint import RELEASED, Pen, draw, keypoint_pixels


class Identity(NamedTuple):
    """A condition as it is given: some of its parts may have to be detected in pictures."""

    embeddings: Float[Tensor, "faces width"] | None
    """The embeddings of the faces; None if they are given as pictures."""
    portraits: list[Tensor]
    """The pictures of faces, each (3, height, width) in a size of its own."""
    keypoints: Float[Tensor, "pictures 3 height width"] | None
    """The drawn keypoints; None if they are to be detected."""


def read(
    value: Mapping[str, Any],
    request: GenerationRequest,
    adapter: str,
    pack: FacePack = ANTELOPE,
    pen: Pen = RELEASED,
) -> Identity:
    """Reads a condition; the face detector does not run.

    Args:
        value: `face`, and `keypoints`, which may be omitted if the face is a picture.
        request: The generation.
        adapter: The name of the adapter, for messages.
        pack: The face models that the adapter was trained with.
        pen: How keypoints are drawn.

    Raises:
        ConditionError: The face or the keypoints are malformed, or their count does not match the
            generated pictures.
    """
    face, keypoints = value["face"], value.get("keypoints")
    rows, portraits = face_embeddings(face, adapter, pack), list[Tensor]()
    if rows is None:
        portraits = face_pictures(face)
    elif keypoints is None:
        raise ConditionError(
            f"{adapter} is given a face as numbers, but no keypoints.",
            hint='Pass "keypoints": five points (x, y) in pixels, or a picture of them.',
        )
    _check_count("faces", len(portraits if rows is None else rows), request, adapter)
    if keypoints is None:
        return Identity(rows, portraits, None)
    drawn = keypoint_pixels(keypoints, (request.height, request.width), adapter, pen)
    _check_count("sets of keypoints", len(drawn), request, adapter)
    return Identity(rows, portraits, drawn)


def detected(
    value: Mapping[str, Any],
    request: GenerationRequest,
    adapter: str,
    detector: Detector | None,
    pack: FacePack = ANTELOPE,
    pen: Pen = RELEASED,
) -> tuple[Float[Tensor, "faces numbers"], Float[Tensor, "pictures 3 height width"]]:
    """Returns embeddings and drawn keypoints; detects those that the condition lacks.

    Args:
        value: The condition, as for `read`.
        request: The generation.
        adapter: The name of the adapter, for messages.
        detector: The face detector; None for insightface's, which is loaded if it is needed.
        pack: The face models that the adapter was trained with.
        pen: How keypoints are drawn.

    Raises:
        ConditionError: The condition is malformed, or a picture shows no face.
    """
    rows, portraits, drawn = read(value, request, adapter, pack, pen)
    if portraits:
        finder = detector or default_detector(adapter, pack)
        faces = [largest_face(pixels, finder, adapter, pack) for pixels in portraits]
        rows = torch.stack([face.embedding for face in faces])
        if drawn is None:
            size = (request.height, request.width)
            pairs = zip(faces, portraits, strict=True)
            drawn = torch.stack([_drawn(face, picture, size, pen) for face, picture in pairs])
    assert rows is not None, "there are numbers or pictures"
    assert drawn is not None, "there are keypoints or pictures"
    return rows, drawn


def _check_count(what: str, count: int, request: GenerationRequest, adapter: str) -> None:
    if count not in (1, request.count):
        raise ConditionError(
            f"{adapter} is given {count} {what} for {request.count} pictures.",
            hint="Pass one, or one per picture.",
        )


def _drawn(face: Face, picture: Tensor, size: tuple[int, int], pen: Pen) -> Tensor:
    """Draws the keypoints of a face, with its picture fitted into the generated one."""
    height, width = picture.shape[-2:]
    factor = min(size[0] / height, size[1] / width)
    corner = torch.tensor([(size[1] - width * factor) / 2, (size[0] - height * factor) / 2])
    return draw(face.keypoints * factor + corner, size, pen)
