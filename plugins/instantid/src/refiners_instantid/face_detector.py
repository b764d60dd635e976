"""Face detection by insightface, an optional dependency."""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from refiners_core.errors import ConditionError

SIDES: Final = tuple(range(640, 319, -64))
"""The input sizes of the detector, in pixels, in the order in which they are tried."""
MODELS: Final = Path("~/.insightface/models/antelopev2")
"""The folder in which insightface keeps the models of its pack `antelopev2`."""
PACK: Final = ("scrfd_10g_bnkps.onnx", "glintr100.onnx")
"""The models of the pack that are used: the detector and the face embedding."""
_NUMBERS: Final = "pass face as 512 numbers, the raw `embedding` of antelopev2"


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

    embedding: Float[Tensor, "512"]
    """The raw output of the network, not normalised."""
    keypoints: Float[Tensor, "5 2"]
    """Coordinates x and y in pixels of the picture in which the face was found."""


def largest_face(pixels: Float[Tensor, "3 height width"], detector: Detector, adapter: str) -> Face:
    """Returns the face with the largest box; the first if several are equally large.

    Args:
        pixels: A picture in 0...1.
        detector: The face detector; its input size is tried from 640 down to 320 pixels.
        adapter: The name of the adapter, for messages.

    Raises:
        ConditionError: No face is found, or the detector returns no embedding or keypoints.
    """
    levels = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    face = max(_faces(np.ascontiguousarray(levels[..., ::-1]), detector), key=_area, default=None)
    if face is None:
        raise ConditionError(
            f"no face was found in the picture for {adapter}.",
            hint=f"Pass a picture with a larger face, seen from the front, or {_NUMBERS}.",
        )
    if face.embedding is None or face.kps is None:
        raise ConditionError(
            f"the detector of {adapter} returns faces without embedding or keypoints.",
            hint='Prepare FaceAnalysis(name="antelopev2") with detection and recognition.',
        )
    values = (torch.from_numpy(np.array(x, np.float32)) for x in (face.embedding, face.kps))
    return Face(*values)


def default_detector(adapter: str) -> Detector:
    """Returns insightface's antelopev2, loaded once per process, on the CPU.

    Raises:
        ConditionError: The package is not installed, or its models are missing.
    """
    try:
        module: Any = import_module("insightface.app")
    except ImportError as error:
        raise ConditionError(
            f"{adapter} cannot detect a face in a picture: insightface is not installed.",
            hint=f'Run pip install "refiners-instantid[insightface]", or {_NUMBERS}.',
        ) from error
    folder = MODELS.expanduser()
    if missing := [name for name in PACK if not (folder / name).is_file()]:
        # insightface would download them from a link that is broken.
        raise ConditionError(
            f"the face models of antelopev2 are not in {folder}: no {' and no '.join(missing)}.",
            hint=f"Put them there (their licence is for non-commercial research), or {_NUMBERS}.",
        )
    return _prepared(module.FaceAnalysis)


@cache
def _prepared(make: Any) -> Detector:
    analysis = make(
        name=MODELS.name,
        root=str(MODELS.parents[1].expanduser()),
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
