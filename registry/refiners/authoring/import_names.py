"""Reads which names of Refiners the code of a package imports, without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from refiners_core.public import MODULES

_CORE = ("refiners", "refiners_core")


class ImportedName(NamedTuple):
    """One imported name of another package of Refiners."""

    path: Path
    line: int
    module: str
    """The public module; empty if the name is in none."""
    name: str
    """The name in the module, or all of it if the module is not public."""


def imported_names(package: Path) -> Iterator[ImportedName]:
    """Yields the names of Refiners and of its plugins that the modules of a package import.

    Args:
        package: The folder of the package.

    Raises:
        OSError, SyntaxError, ValueError: A module cannot be read.
    """
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if _is_foreign(alias.name, package.name):
                        module = alias.name if alias.name in MODULES else ""
                        yield ImportedName(path, node.lineno, module, "" if module else alias.name)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names if _is_foreign(node.module, package.name) else ():
                    yield _imported(path, node.lineno, node.module, alias.name)


def _imported(path: Path, line: int, module: str, name: str) -> ImportedName:
    whole = f"{module}.{name}"
    if module in MODULES:
        return ImportedName(path, line, module, "" if whole in MODULES else name)
    return ImportedName(path, line, whole if whole in MODULES else "", whole)


def _is_foreign(module: str, package: str) -> bool:
    """Whether a module is one of Refiners, or of another of its plugins."""
    top = module.partition(".")[0]
    return top != package and (top in _CORE or top.startswith("refiners_"))


def private_imports(package: Path) -> Iterator[tuple[Path, str]]:
    """Yields the imports of names that are not public, or that another plugin has.

    Raises:
        OSError, SyntaxError, ValueError: A module cannot be read.
    """
    for path, line, module, name in imported_names(package):
        if not module:
            top = name.partition(".")[0]
            what = (
                "which is not public and may change at any time; refiners api lists public names"
                if top in _CORE
                else "which is another plugin; find it by name, or copy what you need"
            )
            yield path, f"line {line} imports {name}, {what}"
