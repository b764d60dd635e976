"""Writes the repository of a new adapter or base model from a template: complete and tested."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import metadata, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from refiners.catalog import listed
from refiners.errors import OptionError
from refiners.host.text import reason_of
from refiners.installed.distribution import DISTRIBUTION

TEMPLATE: Final = Path(__file__).parent / "template"
"""The template in this package; the repository of Refiners is the same one, with versions."""
KINDS: Final = ("lora", "control", "image-prompt", "guidance", "plain")
"""The kinds of adapters that a package may begin with."""
MODEL: Final = "base"
"""The kind of a package of a base model."""
LICENSES: Final = ("MIT", "Apache-2.0", "BSD-3-Clause")
"""The licences that the template has, by their SPDX identifiers."""
ANSWERS: Final = ".copier-answers.yml"
"""The file in a new package that `copier update` reads."""
_INVALID: Final = re.compile(r"Validation error for question '\w+': (?P<what>.*)", re.DOTALL)
_SOURCE: Final = re.compile(r"^_(?:src_path|commit):.*\n(?:[ \t]+.*\n)*", re.MULTILINE)
"""The lines of the answers that name the template."""


def create(
    name: str,
    folder: Path,
    *,
    kind: str = KINDS[0],
    answers: Mapping[str, str] | None = None,
    template: str = "",
) -> tuple[Path, ...]:
    """Writes the repository of a new adapter or base model.

    Args:
        name: The name of the adapter or the model, in lower-case words joined by hyphens.
        folder: The folder of the repository, which must not exist.
        kind: What it begins with: one of `KINDS`, or `MODEL`.
        answers: Answers to other questions of the template, such as `author` and `license`.
        template: The folder or the git repository of the template; the one in this package by
            default.

    Returns:
        The paths of the written files.

    Raises:
        OptionError: The name or an answer is invalid, the folder exists or cannot be written, the
            template cannot be read, or copier is not installed.
    """
    if find_spec("copier") is None:
        raise OptionError(
            "a new package is written by copier, which is not installed.",
            hint=f'Run pip install "{DISTRIBUTION}[new]".',
        )
    if folder.exists():
        raise OptionError(f"{folder} already exists.", hint="Name another folder: --folder.")
    _check_free(name)
    _copy(template or str(TEMPLATE), folder, {**(answers or {}), "name": name, "kind": kind})
    if not template:
        _name_source(folder / ANSWERS)
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))


def _check_free(name: str) -> None:
    """Refuses the name of a distribution that the catalog lists."""
    taken = next((entry for entry in listed() if entry.distribution == f"refiners-{name}"), None)
    if taken is not None:
        raise OptionError(
            f"refiners-{name} is published already, with {taken.name}.",
            hint=f"Choose another name, such as my-{name}.",
        )


def _copy(template: str, folder: Path, answers: Mapping[str, str]) -> None:
    """Lets copier render the template.

    Raises:
        OptionError: An answer is invalid, or the template or the folder cannot be used.
    """
    from copier import run_copy

    unusable = f"the template {template} cannot be used"
    hint = "Name a folder or a git repository with a copier.yml: --template."
    if Path(template).is_dir() and not (Path(template) / "copier.yml").is_file():
        raise OptionError(f"{unusable}: it has no copier.yml.", hint=hint)
    try:
        run_copy(template, folder, dict(answers), defaults=True, quiet=True)
    except OSError as error:
        raise OptionError(f"{folder} cannot be written: {error}.", hint="Try --folder.") from error
    except Exception as error:  # copier has no type for all of its errors
        if match := _INVALID.fullmatch(str(error)):
            fault, _, advice = match["what"].partition(". ")
            raise OptionError(f"{fault.rstrip('.')}.", hint=advice) from error
        reason = reason_of(error).rstrip(".")
        raise OptionError(f"{unusable}: {reason}.", hint=hint) from error


def _name_source(path: Path) -> None:
    """Replaces the path of this package in the answers by the repository that it came from.

    A path of this machine is of no use to others, and has no versions to update from.
    """
    urls = dict(url.split(", ", 1) for url in metadata(DISTRIBUTION).get_all("Project-URL") or ())
    lines = f"_commit: v{version(DISTRIBUTION)}\n"
    if "Repository" in urls:
        lines += f"_src_path: {urls['Repository']}\n"
    else:
        lines += "# For `copier update`, name the repository of Refiners: _src_path: https://...\n"
    head, *rest = path.read_text("utf-8").split("\n", 1)
    path.write_text(f"{head}\n{lines}{_SOURCE.sub('', ''.join(rest))}", "utf-8")
