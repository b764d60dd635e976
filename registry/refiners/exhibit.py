"""Runs the examples of packages, and keeps the pictures that they leave.

An example leaves its pictures in the variable `pictures`: a mapping of titles to PIL images, or to
lists of images, which are shown below one another; or a plain list of images.
"""

from __future__ import annotations

import runpy
import sys
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from refiners.choose.policy import Guard
from refiners.errors import PluginError, RefinersError
from refiners.host.machine import is_memory, machine_fault
from refiners.host.text import reason_of
from refiners.installed.example import Example
from refiners.installed.unreadable import let_torch_load
from refiners.sheet import Pictures, drawn_sheet, titled

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import CodeType

    from PIL import Image


class Exhibit(NamedTuple):
    """The result of an example that ran."""

    pictures: Pictures
    """The pictures that it left, by their titles; empty if it printed its result instead."""
    seconds: float
    """The time it took."""

    def sheet(self) -> Image.Image | None:
        """Returns all pictures on one sheet with their titles; None if there are none."""
        return drawn_sheet(self.pictures) if self.pictures else None


def run_example(example: Example) -> Exhibit:
    """Runs an example in this process, as `python NAME.py` would.

    Args:
        example: The example, from `examples`.

    Raises:
        PolicyError: A rule of the project or the user, or an advisory, refuses its package.
        PluginError: The script failed; the message names the package and the line.
        MachineError: The script met a fault of this machine, such as a full disk.
    """
    Guard.from_environment().admit(example)
    let_torch_load()
    start = perf_counter()
    try:
        with _arguments(str(example.path)):
            variables = runpy.run_path(str(example.path), run_name="__main__")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # including SystemExit
        if is_memory(error):
            raise
        raise _failure(example, error) from error
    return Exhibit(_pictures(example, variables.get("pictures", {})), perf_counter() - start)


@contextmanager
def _arguments(*arguments: str) -> Generator[None]:
    before, sys.argv = sys.argv, [*arguments]
    try:
        yield
    finally:
        sys.argv = before


def _failure(example: Example, error: BaseException) -> RefinersError:
    doing = f"running the example {example.id}"
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        place = str(error.filename or "a file")
        if (fault := machine_fault(error, doing, place=place)) is not None:
            return fault
    line = _line(example, error)
    hint = error.hint if isinstance(error, RefinersError) else ""
    return PluginError(
        f"{doing} failed{line}: {type(error).__name__}: {reason_of(error).rstrip('.')}.",
        hint=hint or f"Try pip install -U {example.dist}, or ask its author.",
        dist=example.dist,
    )


def _line(example: Example, error: BaseException) -> str:
    """Returns the line of the script that failed, as words; empty if it has none."""
    if isinstance(error, SyntaxError):
        return f" at line {error.lineno}" if error.lineno else ""
    trace, line = error.__traceback__, 0
    while trace is not None:
        code: CodeType = trace.tb_frame.f_code
        if code.co_filename == str(example.path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" at line {line}" if line else ""


def _pictures(example: Example, value: Any) -> Pictures:
    """Returns the pictures that an example left, with empty titles for a plain list.

    Raises:
        PluginError: The variable holds something else.
    """
    try:
        return titled(value)
    except TypeError as error:
        raise PluginError(
            f"the example {example.id} leaves {error} in `pictures`.",
            hint="Its author should leave a mapping of titles to PIL images.",
            dist=example.dist,
        ) from error
