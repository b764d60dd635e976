"""Finds the examples of installed packages, without importing or running them.

A package ships its examples in the folder `examples` of its top-level package: `NAME.py`, a script
with a docstring that runs on its own, and beside it `NAME.png`, a picture of its result.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

from refiners.host.text import reason_of
from refiners.installed.distribution import canonical
from refiners.installed.inventory import GROUPS, Broken, entry_points, package_folders
from refiners_core.command import GROUP as COMMANDS

FOLDER: Final = "examples"
"""The folder of a top-level package that holds its examples."""
LARGEST_PICTURE: Final = 200_000
"""The maximum size of the picture of an example, in bytes."""
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_LOADS: Final = ("load_adapter", "load_model", "load_preprocessor")


class Example:
    """One example of a package; its script is parsed, never run.

    Args:
        path: The script.
        dist: The distribution that ships it.
        version: The version of the distribution.
    """

    def __init__(self, path: Path, dist: str, version: str) -> None:
        self.path: Final = path
        self.dist: Final = dist
        self.version: Final = version

    @property
    def name(self) -> str:
        """The name of the file without `.py`."""
        return self.path.stem

    @property
    def id(self) -> str:
        """The canonical name, `distribution:name`."""
        return f"{self.dist}:{self.name}"

    @property
    def picture(self) -> Path | None:
        """The picture of its result; None if the package ships none."""
        path = self.path.with_suffix(".png")
        return path if path.is_file() else None

    @property
    def title(self) -> str:
        """The first line of the docstring, without its full stop; empty without one."""
        docstring = "" if self._tree is None else ast.get_docstring(self._tree) or ""
        return docstring.partition("\n")[0].strip().removesuffix(".")

    @cached_property
    def loads(self) -> tuple[str, ...]:
        """The adapters, models and preprocessors that the script loads by name, sorted."""
        names: set[str] = set()
        for node in ast.walk(self._tree or ast.Module([], [])):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                function = node.func.attr if isinstance(node.func, ast.Attribute) else ""
                function = node.func.id if isinstance(node.func, ast.Name) else function
                if function in _LOADS and isinstance(node.args[0].value, str):
                    names.add(node.args[0].value)
        return tuple(sorted(names))

    def faults(self) -> Iterator[str]:
        """Yields why the example cannot be shown or run, as clauses about its files."""
        if self._tree is None:
            yield f"{self.path.name} {self._parsed[1]}"
        elif not self.title:
            yield f"{self.path.name} has no docstring, whose first line is the title"
        if self.picture is None:
            return
        size = self.picture.stat().st_size
        if size > LARGEST_PICTURE:
            yield f"{self.picture.name} has {size} bytes, and at most {LARGEST_PICTURE} are shown"
        with self.picture.open("rb") as file:
            if file.read(len(_PNG)) != _PNG:
                yield f"{self.picture.name} is not a PNG"

    @property
    def _tree(self) -> ast.Module | None:
        return self._parsed[0]

    @cached_property
    def _parsed(self) -> tuple[ast.Module | None, str]:
        try:
            return ast.parse(self.path.read_bytes()), ""
        except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
            return None, f"cannot be read: {reason_of(error)}"


def examples(package: str | None = None) -> tuple[Example, ...]:
    """Returns the examples of installed packages, sorted by package and name.

    Args:
        package: A distribution, such as `refiners-freeu`; None for all.
    """
    shipped: dict[str, Example] = {}
    for dist, version, folder in _packages():
        if package is None or canonical(package) == dist:
            for example in examples_in(folder, dist, version):
                shipped.setdefault(example.id, example)
    return tuple(shipped[id] for id in sorted(shipped))


def examples_in(folder: Path, dist: str, version: str = "") -> Iterator[Example]:
    """Yields the examples of a top-level package, installed or as source, sorted by name.

    Args:
        folder: The folder of the package, which holds its `__init__.py`.
        dist: The distribution that ships it.
        version: The version of the distribution.
    """
    for path in sorted((folder / FOLDER).glob("*.py")):
        if path.is_file() and not path.name.startswith("_"):
            yield Example(path, dist, version)


def _packages() -> Iterable[tuple[str, str, Path]]:
    """Yields the distribution, version and folder of each package that extends Refiners."""
    unread: list[Broken] = []
    seen: set[tuple[str, str]] = set()
    for owner, _, _, value in entry_points((*GROUPS, COMMANDS), unread):
        package = value.partition(":")[0].partition(".")[0].strip()
        if (owner.name, package) in seen:
            continue
        seen.add((owner.name, package))
        try:
            folders = package_folders(package)
        except KeyboardInterrupt:
            raise
        except BaseException:  # of a foreign finder; `refiners list` reports the package
            continue
        yield from ((owner.name, owner.version, folder) for folder in folders)
