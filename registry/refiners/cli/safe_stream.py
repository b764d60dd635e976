"""Streams that never pass a control character on to a terminal.

Manifests, paths, warnings and the output of plugins are written by strangers. A `SafeStream` in
front of standard output and of standard error replaces every character that a terminal interprets
with a readable escape. Our own colours and frames are written behind it, to the stream itself.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO, Any, Final, cast

from refiners.host.text import shown

_UP: Final = "\x1b[A"
"""How progress bars that run side by side move to their line."""


class SafeStream:
    """A text stream in front of another one, which receives no control characters.

    Progress bars, which write to standard error only, may return to the beginning of their line
    and, on a terminal, move up to it.

    Args:
        wrapped: The stream that receives the text.
        has_bars: Whether progress bars write to it.
    """

    def __init__(self, wrapped: IO[str], *, has_bars: bool) -> None:
        self.wrapped: Final = wrapped
        self._has_bars = has_bars

    def write(self, text: str) -> int:
        """Writes a text, with an escape for each control character."""
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a text stream takes str, not {type(text).__name__}")
        self.wrapped.write(self._progress(text) if self._has_bars else shown(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes several texts."""
        for line in lines:
            self.write(line)

    @property
    def buffer(self) -> io.RawIOBase:
        """A binary stream whose bytes are escaped as well."""
        return _Bytes(self)

    def _progress(self, text: str) -> str:
        begin = "\r" if text.startswith("\r") else ""
        up = _UP if self.wrapped.isatty() else ""
        return begin + up.join(shown(part) for part in text.removeprefix("\r").split(_UP))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


class _Bytes(io.RawIOBase):
    def __init__(self, stream: SafeStream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._stream.write(bytes(data).decode("utf-8", "replace"))
        return len(data)


@contextmanager
def safe_streams() -> Generator[None]:
    """Wraps standard output and standard error for the length of the block."""
    before = sys.stdout, sys.stderr
    streams = [
        None if stream is None else SafeStream(unwrapped(stream), has_bars=has_bars)  # pyright: ignore[reportUnnecessaryComparison]
        for stream, has_bars in zip(before, (False, True), strict=True)
    ]
    sys.stdout, sys.stderr = cast("list[Any]", streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def unwrapped(stream: Any) -> IO[str]:
    """Returns the stream behind a `SafeStream`; any other stream as it is."""
    return stream.wrapped if isinstance(stream, SafeStream) else stream
