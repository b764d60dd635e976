"""Writes the pictures that commands make."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from refiners.errors import OptionError
from refiners.host.shell import quoted


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
