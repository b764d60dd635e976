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
    """Returns a picture in RGB.

    Raises:
        OptionError: It is none.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise OptionError(f"{path} is no picture: {error}.", hint="Try a PNG.") from error


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
