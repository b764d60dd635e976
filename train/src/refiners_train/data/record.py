"""Records of a picture source before framing: pictures as files hold them, texts, conditions."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from refiners_core.errors import ConditionError
from refiners_core.picture import to_mask, to_pixels
from refiners_train.data.data_error import DataError, listed

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""The endings of files of pictures."""

PICTURE = "picture"
"""The place of a condition that is the picture itself, as for an image prompt."""

File = Path | bytes | Image.Image
"""A picture that is not read yet: a path, the content of a file, or an image."""


@dataclass(frozen=True)
class Record:
    """One picture with what belongs to it, not framed."""

    name: str
    """The name in errors, such as its path."""
    picture: File
    text: str
    conditions: Mapping[str, File | Sequence[float]] = field(
        default_factory=dict[str, "File | Sequence[float]"]
    )
    """A picture, or numbers, for each input of the adapter."""
    mask: File | None = None
    """A picture whose bright parts count in the loss."""


@runtime_checkable
class Records(Protocol):
    """Records by index."""

    @property
    def fingerprint(self) -> str:
        """A text that changes with the records."""
        ...

    def __len__(self) -> int: ...

    def record(self, index: int) -> Record:
        """Returns a record."""
        ...


def image_of(file: File) -> Image.Image:
    """Opens a picture, turned upright.

    Raises:
        OSError, SyntaxError, ValueError: The picture is not one, or is damaged.
    """
    if isinstance(file, bytes):
        return ImageOps.exif_transpose(Image.open(BytesIO(file)))
    return ImageOps.exif_transpose(Image.open(file) if isinstance(file, Path) else file)


def size_of(file: File) -> tuple[int, int]:
    """Returns height and width of a picture, turned upright; reads the header of a file alone.

    Raises:
        OSError, SyntaxError, ValueError: The picture is not one.
    """
    if isinstance(file, Image.Image):
        image = file
    else:
        image = Image.open(BytesIO(file) if isinstance(file, bytes) else file)
    # Not image.getexif(): that of a PNG decodes all of the picture.
    is_turned = Image.Image.getexif(image).get(_ORIENTATION, 1) >= _TURNED
    return (image.width, image.height) if is_turned else (image.height, image.width)


_ORIENTATION, _TURNED = 0x0112, 5
"""The EXIF tag of the orientation, and the first of its values that exchange the sides."""


def pixels_of(name: str, file: File) -> Float[Tensor, "3 height width"]:
    """Returns the pixels of a picture in 0...1.

    Raises:
        DataError: The picture cannot be read.
    """
    try:
        return to_pixels(image_of(file))[0]
    except (OSError, SyntaxError, ValueError, ConditionError) as error:
        raise DataError(
            f"{name} cannot be read: {_reason(error)}.", hint="Replace it, or take it out."
        ) from error


def mask_of(name: str, file: File) -> Float[Tensor, "1 height width"]:
    """Returns the brightness of a mask in 0...1; for a picture with transparent parts, its opacity.

    Raises:
        DataError: The mask cannot be read.
    """
    try:
        image = image_of(file)
        is_clear = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        return to_mask(image.convert("RGBA").getchannel("A") if is_clear else image)[0]
    except (OSError, SyntaxError, ValueError, ConditionError) as error:
        raise DataError(
            f"the mask of {name} cannot be read: {_reason(error)}.",
            hint="Replace it, or take it out.",
        ) from error


def value_of(name: str, value: Any) -> Tensor | None:
    """Returns a condition that is numbers as a tensor; None for a picture."""
    if isinstance(value, Path | bytes | Image.Image):
        return None
    try:
        return torch.as_tensor(value, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"a condition of {name} is neither a picture nor numbers: {type(value).__name__}.",
            hint="Name another column.",
        ) from error


def check_pictures(records: Records, threads: int = 8) -> None:
    """Reads every picture, mask and condition once, so that no damaged file ends a run later.

    Args:
        records: The records.
        threads: The number of files that are read at a time.

    Raises:
        DataError: Some are damaged; the message names all of them.
    """

    def faults(index: int) -> list[str]:
        try:
            record = records.record(index)
        except DataError as error:
            return [error.message]
        files = [(record.name, record.picture)]
        files += [
            (_path(value, f"{record.name}, condition {name!r}"), value)
            for name, value in record.conditions.items()
            if isinstance(value, Path | bytes | Image.Image)
        ]
        if record.mask is not None:
            files.append((_path(record.mask, f"{record.name}, mask"), record.mask))
        return [f"{name}: {fault}" for name, file in files if (fault := _fault(file))]

    with ThreadPoolExecutor(threads) as pool:
        found = [fault for row in pool.map(faults, range(len(records))) for fault in row]
    if found:
        raise DataError(
            f"{len(found)} of the files of {len(records)} pictures cannot be read:\n"
            f"{listed(found)}\n",
            hint="Replace them, or take them out.",
        )


def _path(file: Any, name: str) -> str:
    return str(file) if isinstance(file, Path) else name


def _fault(file: File) -> str:
    try:
        image_of(file).load()
    except (OSError, SyntaxError, ValueError) as error:
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    return str(error).split(" /")[0].rstrip(".") or type(error).__name__
