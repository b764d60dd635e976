"""Standard output as it is: as wide as a terminal, in any encoding, or a pipe that closed."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import shutil
import sys
from collections.abc import Generator
from contextvars import ContextVar
from typing import IO, Final

_PLAIN: Final = str.maketrans(
    {
        **dict.fromkeys("─━═", "-"),
        **dict.fromkeys("│┃║", "|"),
        **dict.fromkeys("├┣┌┬┐┤┼╔╠", "|"),
        **dict.fromkeys("└┗┘┴╚╝", "`"),
        **{"→": "->", "←": "<-", "…": "...", "—": "-", "\xd7": "x", "\u2013": "-", "\u2212": "-"},
        **dict.fromkeys("\u2018\u2019\u201a", "'"),
        **dict.fromkeys("“”„", '"'),
        **{"≤": "<=", "≥": ">=", "•": "*", "\xa0": " "},
    }
)
"""Letters that look nearly the same in every encoding."""
_HANDLER: Final = "refiners-screen"

_answers: ContextVar[IO[str] | None] = ContextVar("answers", default=None)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Writes what an encoding lacks in letters that all of them have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error(_HANDLER, _plain)


def prepare() -> None:
    """Lets standard output and error take every letter, whatever their encoding is."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def answers() -> IO[str] | None:
    """Returns where answers for programs go; None if standard output is closed."""
    return _answers.get() or sys.stdout


@contextlib.contextmanager
def answering(as_json: bool) -> Generator[None]:
    """Keeps standard output for JSON: what libraries and plugins print meanwhile goes to stderr."""
    if not as_json:
        yield
        return
    token = _answers.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _answers.reset(token)


def is_unicode(stream: IO[str] | None) -> bool:
    """Whether a stream takes every letter."""
    return "utf" in (getattr(stream, "encoding", None) or "utf-8").lower()


def width() -> int | None:
    """Returns how many columns a line may take; None for a pipe, which gets whole lines."""
    if sys.stdout is not None and sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    wish = os.environ.get("COLUMNS", "")
    return int(wish) if wish.isdecimal() and int(wish) else None


def settle() -> None:
    """Writes out what is left; a reader that has gone away is not an error at the very end."""
    streams: tuple[IO[str] | None, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
