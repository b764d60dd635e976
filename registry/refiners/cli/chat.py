"""`refiners chat`: a conversation with a language model, with adapters."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import IO, Any, Final

import click

from refiners.cli.adapter_option import AdapterOption
from refiners.cli.failure import report
from refiners.cli.output import say, write_piece
from refiners.cli.text_option import Writer, load_writer, text_options
from refiners.errors import RefinersError

_ENDS: Final = ("exit", "quit")
_SIGN: Final = "> "


@click.command()
@text_options
@click.option("--system", metavar="TEXT", help="The message of the system, before all others.")
def chat(
    model: str, adapters: tuple[AdapterOption, ...], system: str | None, seed: int, **options: Any
) -> None:
    """Talk with a language model, with adapters.

    Each line of standard input is a message, and the answer is printed while it is written. Ctrl-D
    or exit ends the conversation; Ctrl-C ends an answer. When the conversation is longer than the
    model can read, its oldest messages are left out.

    \b
    Examples:
      refiners chat
      refiners chat --adapter writer-archaic
      echo "Describe a red circle on a blue ground." | refiners chat
      refiners chat --model ./Qwen2.5-0.5B-Instruct --system "Answer in one sentence." \\
        --temperature 0.7
    """
    first: list[Mapping[str, str]] = [] if system is None else [_message("system", system)]
    trial = [*first, _message("user", "Hello")]
    writer = load_writer(trial, model=model, adapters=adapters, seed=seed, **options)
    conversation = Conversation(writer, seed, first)
    is_live = _is_live()
    for text in _lines(is_live):
        try:
            conversation.answer(text, is_live=is_live)
        except RefinersError as error:
            if not is_live:
                raise
            report(error, click.get_current_context().command, as_json=False)


@dataclass
class Conversation:
    """The messages so far, and the model that answers.

    Args:
        writer: The model.
        seed: The seed of the first answer; the next ones follow.
        first: The message of the system, if there is one, which is never left out.
    """

    writer: Writer
    seed: int
    first: list[Mapping[str, str]]
    turns: list[Mapping[str, str]] = field(default_factory=list[Mapping[str, str]])
    """The messages of the user and the answers, in turn."""
    is_shortened: bool = False
    """Whether messages were left out."""

    def answer(self, text: str, *, is_live: bool) -> None:
        """Prints the answer to a message, piece by piece.

        Args:
            text: The message.
            is_live: Whether Ctrl-C ends the answer rather than the command.

        Raises:
            RefinersError: The message alone is too long, or the model fails; it is left out.
        """
        turns = self._fitting([*self.turns, _message("user", text)])
        written: list[str] = []
        with (
            suppress(*((KeyboardInterrupt,) if is_live else ())),
            closing(self._pieces(turns)) as pieces,
        ):
            for piece in pieces:
                written.append(piece)
                write_piece(piece)
        click.echo()
        self.turns = [*turns, _message("assistant", "".join(written))]
        self.seed += 1

    def _pieces(self, turns: list[Mapping[str, str]]) -> Generator[str]:
        arguments = {**self.writer.arguments, "seed": self.seed}
        yield from self.writer.model.stream([*self.first, *turns], **arguments)

    def _fitting(self, turns: list[Mapping[str, str]]) -> list[Mapping[str, str]]:
        """Returns the latest messages, as many as the model can read."""
        while True:
            try:
                self.writer.model.check([*self.first, *turns], **self.writer.arguments)
            except RefinersError:
                if len(turns) == 1:
                    raise
                turns = turns[2:]
                if not self.is_shortened:
                    say("The oldest messages are left out: they no longer fit.", err=True)
                self.is_shortened = True
            else:
                return turns


def _lines(is_live: bool) -> Iterator[str]:
    """Yields the messages of standard input, until it ends or says `exit`."""
    if is_live:
        with suppress(ImportError):
            import readline  # noqa: F401  # pyright: ignore[reportUnusedImport]  input() then edits lines
    while True:
        try:
            line = input(_SIGN) if is_live else _piped()
        except (EOFError, KeyboardInterrupt):
            if is_live:
                click.echo()
                return
            raise
        except UnicodeDecodeError as error:
            raise click.UsageError(
                f"standard input is not {sys.stdin.encoding}; write messages in this encoding."
            ) from error
        if not line and not is_live:
            return
        text = line.strip()
        if text.lower() in _ENDS:
            return
        if text:
            yield text


def _piped() -> str:
    """Returns the next line of standard input; nothing if it has ended, or is closed."""
    stream: IO[str] | None = sys.stdin
    return "" if stream is None or stream.closed else stream.readline()


def _is_live() -> bool:
    """Whether a person types the messages, and reads the answers, on a terminal."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))  # pyright: ignore[reportUnnecessaryComparison]


def _message(role: str, content: str) -> Mapping[str, str]:
    return {"role": role, "content": content}
