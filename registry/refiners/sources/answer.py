"""The answers of a user to what a file leaves open, given as options of `load_adapter`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from refiners.errors import OptionError
from refiners.installed.inventory import Installed
from refiners.manifest.file_layout import Choice, UserFile
from refiners.manifest.schema import AdapterSpec
from refiners.recognition.recogniser import Recognised


def constructor_options(
    adapter: Installed[AdapterSpec], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the options that are not answers to what a file leaves open."""
    table = adapter.spec.file
    answered = {} if table is None else answers_in(table, options)
    return {name: v for name, v in options.items() if name.replace("_", "-") not in answered}


def answers_in(table: UserFile, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that answer questions or name the files beside a user's file."""
    answers: dict[str, Any] = {}
    for option, value in options.items():
        name = option.replace("_", "-")
        is_path = isinstance(value, str | os.PathLike)
        if name in table.asks or (is_path and name in table.beside):
            answers[name] = value
    return answers


def choices_of(
    adapter: Installed[AdapterSpec],
    given: str,
    recognised: Recognised | None,
    options: Mapping[str, Any] | None,
) -> Iterator[Choice]:
    """Yields the answers to what a file leaves open: those of the user, or else the defaults.

    Raises:
        OptionError: An answer is missing or unknown.
    """
    table = adapter.spec.file
    if table is None:
        return
    answers = answers_in(table, options or {})
    open_names = recognised.layout.asks if recognised is not None else ()
    for name, ask in table.asks.items():
        if options is None:
            yield from ask.choices.values() if name in open_names else ()
            continue
        answer = answers.get(name, ask.default if name in open_names else None)
        if answer is None and name not in open_names:
            continue
        if answer not in ask.choices:
            option, names = name.replace("-", "_"), [*ask.choices]
            problem = f"does not say {ask.summary}" if answer is None else f"has no {answer!r} as"
            detail = "" if answer is None else f" {ask.summary}"
            raise OptionError(
                f"{given} {problem}{detail}: {' or '.join(names)}.",
                hint=f'Choose it: load_adapter("{given}", model, {option}="{names[0]}").',
                dist=adapter.dist,
            )
        yield ask.choices[answer]
