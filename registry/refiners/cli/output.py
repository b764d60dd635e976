"""Standard output and standard error: their encoding, their width, and what goes to which."""

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

import click

from refiners.cli.safe_stream import unwrapped
from refiners.host.text import shown

_LOOKALIKES: Final = str.maketrans(
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
"""ASCII that looks nearly the same, for encodings that lack a character."""
_HANDLER: Final = "refiners-output"

_json_stream: ContextVar[IO[str] | None] = ContextVar("json_stream", default=None)


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_LOOKALIKES)
    return text.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error(_HANDLER, _replace_unencodable)


def accept_every_character() -> None:
    """Makes standard output and error write every character, whatever their encoding is."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def say(text: str, *, color: str | None = None, err: bool = False) -> None:
    """Prints a text and a line break, in a colour if the terminal has colours."""
    stream = unwrapped(sys.stderr if err else sys.stdout)
    click.secho(shown(text), file=stream, fg=color)


def write_piece(text: str) -> None:
    """Prints a part of a line at once."""
    stream: IO[str] | None = sys.stdout
    if stream is not None:
        stream.write(text)
        stream.flush()


def json_stream() -> IO[str] | None:
    """Returns the stream for JSON; None if standard output is closed."""
    return _json_stream.get() or sys.stdout


@contextlib.contextmanager
def reserve_stdout(as_json: bool) -> Generator[None]:
    """Reserves standard output for JSON: what libraries and plugins print goes to stderr."""
    if not as_json:
        yield
        return
    token = _json_stream.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _json_stream.reset(token)


def is_unicode(stream: IO[str] | None) -> bool:
    """Whether a stream can encode every character."""
    return "utf" in (getattr(stream, "encoding", None) or "utf-8").lower()


def width() -> int | None:
    """Returns the columns of the terminal; None for a pipe, which gets lines of any length."""
    if sys.stdout is not None and sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) else None


def flush() -> None:
    """Flushes both streams; a reader that has closed its end of a pipe is not an error."""
    streams: tuple[IO[str] | None, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
