"""Pictures in and out of commands, checked before anything slow begins."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from refiners.errors import OptionError

if TYPE_CHECKING:
    from PIL.Image import Image


def opened(path: Path) -> Image:
    """Returns a picture as viewers show it: turned as its EXIF says.

    It is in RGB unless it has more than that to tell: transparency, or more than 8 bits a channel.
    What becomes of these is the core's to decide, which reads pictures in Python as well.

    Raises:
        OptionError: The file does not hold a picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            turned = _turned(picture)
            return turned.convert("RGB") if _is_plain(turned) else turned
    except PermissionError as error:
        raise OptionError(
            f"this user may not read {path}.", hint="Mend its permissions: chmod u+r."
        ) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OptionError(f"{path} is no picture: {error}.", hint="Try a PNG.") from error


def _turned(picture: Image) -> Image:
    from PIL import ImageOps

    picture.load()
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # EXIF is written by many devices, and read as far as it can be
        return picture.copy()


def _is_plain(picture: Image) -> bool:
    is_flat = picture.mode in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
    return is_flat and not picture.has_transparency_data


def check_out(out: Path) -> None:
    """Makes sure that a picture can be written there.

    Raises:
        OptionError: It cannot.
    """
    from PIL.Image import registered_extensions

    if not out.parent.is_dir():
        raise OptionError(
            f"there is no folder {out.parent}.", hint=f"Run mkdir -p {quote(str(out.parent))}."
        )
    if out.suffix.lower() not in registered_extensions():
        raise OptionError(f"{out} names no kind of picture.", hint=f"Try --out {out.stem}.png.")
    if not os.access(out.parent, os.W_OK):
        raise OptionError(f"{out.parent} is not writable.", hint="Choose another --out.")


@contextmanager
def replacing(out: Path) -> Generator[Path]:
    """Yields a path to write to; `out` appears when all of it is there, or stays as it was."""
    temporary = out.with_name(f".{out.stem}.{os.getpid()}{out.suffix}")
    try:
        yield temporary
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
