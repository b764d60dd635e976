"""Pictures in and out of commands, checked before anything slow begins."""

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


def opened(path: Path) -> Image:
    """Returns a picture as it is viewed: upright, of an animation the first frame.

    It is in RGB unless it has more than 8 bits a channel or parts that may be seen through, of
    which a mask makes something else than a picture does.

    Raises:
        OptionError: It is no picture, or is cut short.
    """
    from PIL import Image

    from refiners_core.picture.raster import is_clear, is_deep, upright

    try:
        with Image.open(path) as picture:
            picture.load()
            seen = upright(picture)
            return seen if is_deep(seen) or is_clear(seen) else seen.convert("RGB")
    except PermissionError as error:
        raise OptionError(
            f"this user may not read {path}.", hint=f"Run {quoted('chmod', 'u+r', path)}."
        ) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OptionError(f"{path} is no picture: {error}.", hint="Try a PNG.") from error


def check_out(out: Path) -> None:
    """Makes sure that a picture can be written there.

    Raises:
        OptionError: It cannot.
    """
    from PIL.Image import registered_extensions

    if not out.parent.is_dir():
        raise OptionError(
            f"there is no folder {out.parent}.", hint=f"Run {quoted('mkdir', '-p', out.parent)}."
        )
    if out.suffix.lower() not in registered_extensions():
        raise OptionError(
            f"{out} names no kind of picture.",
            hint=f"Try {quoted('--out', out.with_suffix('.png'))}.",
        )
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
