"""The options of the commands that write texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import click

from refiners.cli.adapter_option import METAVAR, AdapterOption, parse_adapters
from refiners.cli.completion import complete_adapter, complete_model
from refiners.cli.loading import checked_and_loaded
from refiners.cli.location import name_or_path

MODEL: Final = "playground-writer"
_OPTIONS: Final = (
    click.option("--model", metavar="NAME|PATH|hf:ORG/NAME@COMMIT", default=MODEL,
                 show_default=True, shell_complete=complete_model,
                 help="An installed model (refiners list), a folder, or a repository."),
    click.option("--adapter", "adapters", multiple=True, callback=parse_adapters, metavar=METAVAR,
                 shell_complete=complete_adapter, help="Use this adapter; repeatable."),
    click.option("--max-tokens", "max_new_tokens", type=click.IntRange(min=1), metavar="N",
                 help="The number of tokens to write, at most; 256 by default."),
    click.option("--temperature", type=click.FloatRange(min=0), metavar="T",
                 help="How varied the text is; 0, the default, takes the likeliest token."),
    click.option("--top-k", type=click.IntRange(min=1), metavar="N",
                 help="Draw among so many of the likeliest tokens."),
    click.option("--top-p", type=click.FloatRange(0, 1), metavar="P",
                 help="Draw among the likeliest tokens with this probability together."),
    click.option("--min-p", type=click.FloatRange(0, 1), metavar="P",
                 help="Draw among tokens with this share of the largest probability."),
    click.option("--repetition-penalty", type=click.FloatRange(min=0, min_open=True), metavar="R",
                 help="Reduce tokens that occur already; try 1.1."),
    click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; repeatable."),
    click.option("--seed", type=int, default=0, show_default=True,
                 help="The same seed draws the same text."),
    click.option("--device", metavar="NAME", help="Such as cpu or cuda."),
    click.option("--dtype", metavar="NAME", help="Such as bfloat16."),
    click.option("--offline", is_flag=True, is_eager=True, help="Do not go online."),
)  # fmt: skip


class Writer(NamedTuple):
    """A loaded model, and the arguments of each of its texts."""

    model: Any
    arguments: dict[str, Any]


def text_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of a command that writes texts."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def load_writer(
    prompt: Any,
    *,
    model: str,
    adapters: tuple[AdapterOption, ...],
    device: str | None,
    dtype: str | None,
    offline: bool,
    stop: tuple[str, ...],
    **optional: Any,
) -> Writer:
    """Loads a model with the options of the command line, checked before anything is loaded.

    Args:
        prompt: A text or a conversation, such as the command will pass.
        model: The model.
        adapters: The adapters.
        device: The device of the weights.
        dtype: The dtype of the weights.
        offline: Whether to stay offline.
        stop: The texts that end a text.
        **optional: The other options; those that are None are not passed on.

    Raises:
        RefinersError: The model does not write texts, or a generation would fail.
    """
    arguments = {name: value for name, value in optional.items() if value is not None}
    arguments |= {"stop": list(stop)} if stop else {}
    loading = {"device": device, "dtype": dtype, "offline": offline or None}
    named = name_or_path(model)
    loaded, conditions = checked_and_loaded(
        named, prompt, adapters, arguments, loading, is_text=True
    )
    return Writer(loaded, {**arguments, "conditions": conditions})
