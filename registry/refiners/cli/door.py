"""The one door through which everything that a command prints goes.

Whatever the text, of a manifest, a path, a warning or what a plugin prints while it runs: a
character that a terminal obeys comes out as an escape that can be read. Our own colours and frames
are put on behind it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO, Any, Final, cast

import click

from refiners.host.text import shown

_UP: Final = "\x1b[A"
"""How progress bars that run side by side find their line."""


class Door:
    """A text stream in front of another one, which gets nothing that a terminal obeys.

    Progress bars alone may do what they do: return to the beginning of their line and, on a
    terminal, go up to it. They are on standard error only.

    Args:
        beneath: The stream that is written to.
        has_bars: Whether progress bars go there.
    """

    def __init__(self, beneath: IO[str], *, has_bars: bool) -> None:
        self.beneath: Final = beneath
        self._has_bars = has_bars

    def write(self, text: str) -> int:
        """Writes a text with escapes for what a terminal obeys."""
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a text stream takes str, not {type(text).__name__}")
        self.beneath.write(self._progress(text) if self._has_bars else shown(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes several texts."""
        for line in lines:
            self.write(line)

    @property
    def buffer(self) -> io.RawIOBase:
        """A binary stream that comes out at the same door."""
        return _Bytes(self)

    def _progress(self, text: str) -> str:
        begin = "\r" if text.startswith("\r") else ""
        up = _UP if self.beneath.isatty() else ""
        return begin + up.join(shown(part) for part in text.removeprefix("\r").split(_UP))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.beneath, name)


class _Bytes(io.RawIOBase):
    def __init__(self, door: Door) -> None:
        self._door = door

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._door.write(bytes(data).decode("utf-8", "replace"))
        return len(data)


@contextmanager
def guarded() -> Generator[None]:
    """Puts the door in front of standard output and standard error."""
    before = sys.stdout, sys.stderr
    streams = [
        None if stream is None else Door(beneath(stream), has_bars=has_bars)  # pyright: ignore[reportUnnecessaryComparison]
        for stream, has_bars in zip(before, (False, True), strict=True)
    ]
    sys.stdout, sys.stderr = cast("list[Any]", streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def beneath(stream: Any) -> IO[str]:
    """Returns the stream behind the door; the stream itself if it has none."""
    return stream.beneath if isinstance(stream, Door) else stream


def say(text: str, *, color: str | None = None, err: bool = False) -> None:
    """Prints a text and a line break, in a colour where the terminal has any."""
    stream = beneath(sys.stderr if err else sys.stdout)
    click.secho(shown(text), file=stream, fg=color)
