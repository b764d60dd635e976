"""`refiners write`: continues a text, or answers a request, with adapters."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from refiners.cli.adapter_option import AdapterOption
from refiners.cli.output import write_piece
from refiners.cli.report import json_option, print_json
from refiners.cli.text_option import load_writer, text_options


@click.command()
@click.argument("prompt")
@text_options
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True,
              help="The number of texts; each has the next seed.")  # fmt: skip
@json_option
def write(
    prompt: str,
    model: str,
    adapters: tuple[AdapterOption, ...],
    seed: int,
    count: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Write a text that continues PROMPT, with adapters.

    PROMPT is a text, or - for standard input. The text is printed while it is written, without the
    prompt. An adapter is written NAME[=FILE][:SCALE][,OPTION=VALUE...], with its file or
    hf:ORG/NAME in place of the name if you like. Everything is checked before a file is fetched or
    loaded.

    \b
    Examples:
      refiners write "a red circle"
      refiners write "Once upon" --temperature 1 --seed 3 --count 2
      refiners write "a red circle" --adapter writer-archaic
      refiners write "Once upon" --model ./Qwen2.5-0.5B --max-tokens 40 --stop "."
      refiners write - --model ./Qwen2.5-0.5B --adapter ./my-lora:0.8 < text.txt
    """
    prompt = _read_input() if prompt == "-" else prompt
    if not prompt:
        raise click.BadParameter(
            'the prompt is empty; write a word, such as "Once"', param_hint="'PROMPT'"
        )
    writer = load_writer(prompt, model=model, adapters=adapters, seed=seed, **options)

    def pieces(index: int) -> Iterator[str]:
        return writer.model.stream(prompt, **{**writer.arguments, "seed": seed + index})

    if as_json:
        texts = ["".join(pieces(index)) for index in range(count)]
        facts = [option.facts for option in adapters]
        print_json(
            {"prompt": prompt, "texts": texts, "model": model, "seed": seed, "adapters": facts}
        )
        return
    for index in range(count):
        for piece in pieces(index):
            write_piece(piece)
        click.echo()


def _read_input() -> str:
    """Returns the text of standard input without the line break at its end.

    Raises:
        click.BadParameter: Standard input is closed, or its bytes are not text.
    """
    try:
        return sys.stdin.read().removesuffix("\n")
    except (AttributeError, ValueError) as error:  # closed, or not text
        raise click.BadParameter(
            'standard input cannot be read as text; write the prompt, such as "Once"',
            param_hint="'PROMPT'",
        ) from error
