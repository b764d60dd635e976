"""The files that a command names on the shell, and the model that they are for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from refiners_core.command import Shell
from refiners_core.errors import AdapterError

if TYPE_CHECKING:
    from refiners_core import Model


_HUB: Final = "hf:"


def weighted_file(shell: Shell, text: str) -> tuple[Path, float]:
    """Returns the file and the strength of `FILE[:STRENGTH]`.

    Raises:
        click.BadParameter: The file does not exist, or the strength is not a number.
        RefinersError: The file is on the Hub and cannot be fetched.
    """
    path, colon, strength = text.rpartition(":")
    if colon and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", strength, re.IGNORECASE):
        return named_file(shell, path), float(strength)
    return named_file(shell, text, "write FILE or FILE:0.8"), 1.0


def named_file(shell: Shell, text: str, hint: str = "write FILE or hf:ORG/NAME/FILE") -> Path:
    """Returns the path of a file or folder, fetched if it is on the Hub.

    Raises:
        click.BadParameter: The file does not exist.
        RefinersError: The file is on the Hub and cannot be fetched.
    """
    if not text.startswith(_HUB) and not Path(text).expanduser().exists():
        raise click.BadParameter(f"the file {text} does not exist; {hint}.")
    return shell.fetch(text)


def model_of(shell: Shell, files: Sequence[Path], name: str | None) -> Model:
    """Returns the model of some files, with weights only if a method reads them."""
    from refiners_lora.rework.source import needs_weights

    name = name or _model_name(shell, files)
    is_needed = any(needs_weights(file) for file in files)
    return shell.load_model(name) if is_needed else shell.outline(name)


def _model_name(shell: Shell, files: Sequence[Path]) -> str:
    """Returns the one installed model that all files suit.

    Raises:
        AdapterError: There is none, or there are several.
    """
    suiting = [{*shell.models_for(str(file))} for file in files]
    names = sorted(set[str].intersection(*suiting))
    if len(names) == 1:
        return names[0]
    shown = ", ".join(map(str, files))
    raise AdapterError(
        f"{shown}: the model is not clear from the layers; of those installed, "
        f"{', '.join(names) or 'none'} would fit.",
        hint=f'Name it: model="{names[0] if names else "sd15"}".',
    )
