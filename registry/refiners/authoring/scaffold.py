"""Writes the package of a new adapter from templates: complete, tested, ready to be changed."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from string import Template

from refiners.errors import OptionError

_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "LICENSE": "LICENSE",
    "init.py": "src/$package/__init__.py",
    "adapter.toml": "src/$package/adapter.toml",
    "adapter.py": "src/$package/adapter.py",
    "test_adapter.py": "tests/test_adapter.py",
}
"""The path in the new package for each template."""
_TAKEN = ("core",)
_IMPORTED = ("Adapter", "Any", "Chain", "Edit", "Iterable", "Multiply", "Seat", "Sum", "When")
"""Names that the template imports, which its class cannot have."""


def create(name: str, folder: Path) -> tuple[Path, ...]:
    """Writes the package of a new adapter.

    Args:
        name: The adapter's name, in lower-case words joined by hyphens.
        folder: The folder of the package, which must not exist.

    Returns:
        The paths of the written files.

    Raises:
        OptionError: The name is invalid, or the folder exists or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise OptionError(
            f"{name!r} is not a valid name for an adapter.",
            hint="Write lower-case words joined by hyphens, such as edge-guide.",
        )
    if name in _TAKEN:
        raise OptionError(
            f"refiners-{name} is a package of Refiners itself.",
            hint=f"Choose another name, such as my-{name}.",
        )
    if folder.exists():
        raise OptionError(f"{folder} already exists.", hint="Name another folder: --folder.")
    words = {
        "name": name,
        "dist": f"refiners-{name}",
        "package": f"refiners_{name.replace('-', '_')}",
        "kind": _kind(name),
    }
    written: list[Path] = []
    try:
        for path, text in _rendered(words):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
            written.append(target)
    except OSError as error:
        raise OptionError(f"{folder} cannot be written: {error}.", hint="Try --folder.") from error
    return tuple(written)


def _kind(name: str) -> str:
    """Returns the name of the class, with a suffix if Python or the template uses the name."""
    kind = "".join(word.capitalize() for word in name.split("-"))
    return f"{kind}Adapter" if keyword.iskeyword(kind) or kind in _IMPORTED else kind


def _rendered(words: dict[str, str]) -> Iterator[tuple[str, str]]:
    templates = files("refiners.authoring") / "template"
    for source, target in _FILES.items():
        text = (templates / f"{source}.template").read_text("utf-8")
        yield Template(target).substitute(words), Template(text).substitute(words)
