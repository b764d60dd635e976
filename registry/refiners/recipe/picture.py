"""Opens the pictures that a generation reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from refiners.errors import OptionError
from refiners.host.shell import quoted

if TYPE_CHECKING:
    from PIL.Image import Image


def open_picture(path: Path) -> Image:
    """Opens a picture as viewers show it: upright, and the first frame of an animation.

    Converts it to RGB, unless it has more than 8 bits a channel or transparency, which masks and
    pictures treat differently.

    Raises:
        OptionError: The file is not a picture, or is truncated.
    """
    from PIL import Image

    from refiners_core.picture.raster import is_clear, is_deep, upright

    try:
        with Image.open(path) as picture:
            picture.load()
            image = upright(picture)
            image = image if is_deep(image) or is_clear(image) else image.convert("RGB")
            vars(image)["filename"] = path.name  # which recipes record, as of images that PIL opens
            return image
    except PermissionError as error:
        raise OptionError(
            f"this user cannot read {path}.", hint=f"Run {quoted('chmod', 'u+r', path)}."
        ) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OptionError(f"{path} is not a picture: {error}.", hint="Try a PNG.") from error
