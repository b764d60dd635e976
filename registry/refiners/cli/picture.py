"""Opens the pictures that commands read, and writes those that they make."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
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
            return image if is_deep(image) or is_clear(image) else image.convert("RGB")
    except PermissionError as error:
        raise OptionError(
            f"this user cannot read {path}.", hint=f"Run {quoted('chmod', 'u+r', path)}."
        ) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OptionError(f"{path} is not a picture: {error}.", hint="Try a PNG.") from error


def check_out(out: Path) -> None:
    """Checks that a picture can be written to a path.

    Raises:
        OptionError: The folder does not exist or is not writable, or the suffix is unknown.
    """
    from PIL.Image import registered_extensions

    if not out.parent.is_dir():
        raise OptionError(
            f"the folder {out.parent} does not exist.",
            hint=f"Run {quoted('mkdir', '-p', out.parent)}.",
        )
    if out.suffix.lower() not in registered_extensions():
        example = quoted("--out", out.with_suffix(".png"))
        raise OptionError(
            f"{out} does not end in the suffix of a picture format.", hint=f"Try {example}."
        )
    if not os.access(out.parent, os.W_OK):
        raise OptionError(f"the folder {out.parent} is not writable.", hint="Choose another --out.")


@contextmanager
def replacing(out: Path) -> Generator[Path]:
    """Yields a temporary path, and moves it to `out` if the block succeeds."""
    temporary = out.with_name(f".{out.stem}.{os.getpid()}{out.suffix}")
    try:
        yield temporary
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
