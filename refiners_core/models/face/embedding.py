"""Reads the `face` of a condition: embeddings, or pictures in which a face is detected."""

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from refiners_core.errors import ConditionError
from refiners_core.models.face.pack import FacePack
from refiners_core.picture import to_rows


def face_embeddings(face: Any, adapter: str, pack: FacePack) -> Float[Tensor, "count width"] | None:
    """Returns the embeddings of faces that are given as numbers.

    They get length 1 where the adapter reads normalised embeddings.

    Args:
        face: Numbers as a tensor, an array or a list, or one row of them per face.
        adapter: The name of the adapter, for messages.
        pack: The models that the adapter was trained with.

    Returns:
        The embeddings; None if `face` is a picture.

    Raises:
        ConditionError: The face is neither numbers nor a picture, or the numbers are malformed.

    Warns:
        UserWarning: The numbers are normalised, but the adapter reads raw ones.
    """
    if is_face_picture(face):
        return None
    hint = f"Pass the {pack.vector} of {pack.title}: {pack.width} numbers, or one row per picture."
    array = _array(face)
    if array is None or array.ndim not in (1, 2) or len(array) == 0:
        kind = type(face).__name__ if array is None else f"numbers of shape {list(array.shape)}"
        raise ConditionError(
            f"{adapter} cannot read a face from {kind}.", hint=f"{hint} Or pass a picture."
        )
    if array.shape[-1] != pack.width:
        raise ConditionError(
            f"a face for {adapter} is {pack.width} numbers, not {array.shape[-1]}.", hint=hint
        )
    if not np.isfinite(array).all():
        raise ConditionError(f"the face for {adapter} has numbers that are not finite.", hint=hint)
    rows = torch.from_numpy(array.astype(np.float32)).reshape(-1, pack.width)
    if pack.is_normed:
        return rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    if bool(((rows.norm(dim=-1) - 1).abs() < 1e-3).any()):
        warnings.warn(
            f"the face for {adapter} has length 1: it is a normalised embedding. It was trained on "
            "raw ones: pass face.embedding, not face.normed_embedding.",
            stacklevel=2,
        )
    return rows


def face_pictures(face: Any) -> list[Float[Tensor, "3 height width"]]:
    """Returns the pixels, in 0...1, of each picture of a face; sizes may differ.

    Raises:
        ConditionError: A value is not a picture.
    """
    if isinstance(face, list | tuple):
        return [pixels for picture in face for pixels in face_pictures(picture)]
    return [row[0] for row in to_rows(face)]


def is_face_picture(value: Any) -> bool:
    """Whether a face is given as a picture, or as a list of pictures."""
    if isinstance(value, list | tuple):
        return bool(value) and is_face_picture(value[0])
    return isinstance(value, Image.Image) or (isinstance(value, Tensor) and value.ndim >= 3)


def _array(value: Any) -> NDArray[np.generic] | None:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    elif isinstance(value, list | tuple) and value and not isinstance(value[0], float | int):
        rows = [_array(row) for row in value]
        known = [np.atleast_2d(row) for row in rows if row is not None]
        if len(known) < len(rows) or len({row.shape for row in known}) > 1:
            return None
        value = np.concatenate(known)
    elif not isinstance(value, np.ndarray | list | tuple):
        return None
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return None
    return array if array.dtype.kind in "fiu" else None
