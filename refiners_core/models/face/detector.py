"""Face detection by insightface, an optional dependency."""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from refiners_core.errors import ConditionError
from refiners_core.models.face.pack import FacePack

SIDES: Final = tuple(range(640, 319, -64))
"""The input sizes of the detector, in pixels, in the order in which they are tried."""


@runtime_checkable
class DetectionModel(Protocol):
    """The part of a detector that finds boxes."""

    input_size: tuple[int, int] | None
    """Width and height to which a picture is fitted before detection."""


@runtime_checkable
class Detector(Protocol):
    """A prepared `insightface.app.FaceAnalysis`, or an object with the same interface."""

    det_model: DetectionModel

    def get(self, img: NDArray[np.uint8]) -> Sequence[Any]:
        """Returns faces with `bbox`, `kps` and `embedding` from an image in BGR order."""
        ...


class Face(NamedTuple):
    """One face of a picture."""

    embedding: Float[Tensor, " width"]
    """The raw output of the network, not normalised."""
    keypoints: Float[Tensor, "5 2"]
    """Coordinates x and y in pixels of the picture in which the face was found."""


def largest_face(
    pixels: Float[Tensor, "3 height width"], detector: Detector, adapter: str, pack: FacePack
) -> Face:
    """Returns the face with the largest box; the first if several are equally large.

    Args:
        pixels: A picture in 0...1.
        detector: The face detector; its input size is tried from 640 down to 320 pixels.
        adapter: The name of the adapter, for messages.
        pack: The models that the adapter was trained with.

    Raises:
        ConditionError: No face is found, or the detector returns no embedding or keypoints.
    """
    levels = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    face = max(_faces(np.ascontiguousarray(levels[..., ::-1]), detector), key=_area, default=None)
    if face is None:
        raise ConditionError(
            f"no face was found in the picture for {adapter}.",
            hint=f"Pass a picture with a larger face, seen from the front, or {pack.numbers}.",
        )
    if face.embedding is None or face.kps is None:
        raise ConditionError(
            f"the detector of {adapter} returns faces without embedding or keypoints.",
            hint=f'Prepare FaceAnalysis(name="{pack.name}") with detection and recognition.',
        )
    values = (torch.from_numpy(np.array(x, np.float32)) for x in (face.embedding, face.kps))
    return Face(*values)


def default_detector(adapter: str, pack: FacePack) -> Detector:
    """Returns a pack of insightface, loaded once per process, on the CPU.

    Args:
        adapter: The name of the adapter, for messages.
        pack: The models that the adapter was trained with.

    Raises:
        ConditionError: The models are not insightface's, the package is not installed, or its
            models are missing.
    """
    if not pack.extra:
        raise ConditionError(
            f"{adapter} cannot detect a face in a picture: it reads faces of {pack.name}.",
            hint=f"Load it with detector=, an object that finds them, or {pack.numbers}.",
        )
    try:
        module: Any = import_module("insightface.app")
    except ImportError as error:
        raise ConditionError(
            f"{adapter} cannot detect a face in a picture: insightface is not installed.",
            hint=f'Run pip install "{pack.extra}", or {pack.numbers}.',
        ) from error
    folder = (pack.place / pack.name).expanduser()
    if missing := [name for name in pack.files if not (folder / name).is_file()]:
        # insightface would download them, against their licence or from a link that is broken.
        raise ConditionError(
            f"the face models of {pack.name} are not in {folder}: no {' and no '.join(missing)}.",
            hint="Put them there (their licence is for non-commercial research), or "
            f"{pack.numbers}.",
        )
    return _prepared(module.FaceAnalysis, pack)


@cache
def _prepared(make: Any, pack: FacePack) -> Detector:
    analysis = make(
        name=pack.name,
        root=str(pack.place.parent.expanduser()),
        allowed_modules=["detection", "recognition"],
        providers=["CPUExecutionProvider"],
    )
    analysis.prepare(ctx_id=-1, det_size=(SIDES[0], SIDES[0]))
    return analysis


def _faces(picture: NDArray[np.uint8], detector: Detector) -> Sequence[Any]:
    size = detector.det_model.input_size
    try:
        for side in SIDES:
            # `prepare` does not change a size that is already set.
            detector.det_model.input_size = (side, side)
            if faces := list(detector.get(picture)):
                return faces
    finally:
        detector.det_model.input_size = size
    return ()


def _area(face: Any) -> float:
    left, top, right, bottom = map(float, face.bbox[:4])
    return (right - left) * (bottom - top)
