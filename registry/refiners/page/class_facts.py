"""Reads attributes of adapter classes off their sources, without running them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_DEEPEST: Final = 12
"""The most steps from a class to the class that sets an attribute."""


class ClassFacts:
    """The sources of a package, and of the core that it imports.

    Args:
        sources: The text of each file, by its path in the wheel.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources
        self._trees: dict[str, ast.Module | None] = {}

    def flag(self, factory: str, attribute: str) -> bool | None:
        """Returns a true or false attribute of a class; None if the sources do not determine it.

        Args:
            factory: The class, as `package.module:Class`.
            attribute: The name of the attribute.
        """
        module, _, name = factory.partition(":")
        return self._flag(module, name, attribute, _DEEPEST)

    def _flag(self, module: str, name: str, attribute: str, steps: int) -> bool | None:
        tree = self._tree(module)
        if tree is None or not steps:
            return None
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                value = _value(node, attribute)
                for parent in node.bases if value is None else ():
                    parent = parent.value if isinstance(parent, ast.Subscript) else parent
                    if value is None and isinstance(parent, ast.Name):
                        value = self._flag(module, parent.id, attribute, steps - 1)
                return value
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self._flag(node.module, alias.name, attribute, steps - 1)
        return None

    def _tree(self, module: str) -> ast.Module | None:
        if module not in self._trees:
            try:
                self._trees[module] = ast.parse(self._source(module))
            except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
                self._trees[module] = None
        return self._trees[module]

    def _source(self, module: str) -> str:
        path = module.replace(".", "/")
        for name in (f"{path}.py", f"{path}/__init__.py"):
            if name in self._sources:
                return self._sources[name]
        top, _, rest = path.partition("/")
        spec = find_spec(top) if top == "refiners_core" else None
        if spec is None or spec.origin is None:
            return ""
        home = Path(spec.origin).parent
        places = (home / f"{rest}.py", home / rest / "__init__.py")
        return next((place.read_text() for place in places if place.is_file()), "")


def _value(node: ast.ClassDef, attribute: str) -> bool | None:
    for statement in node.body:
        targets = (
            statement.targets if isinstance(statement, ast.Assign)
            else [statement.target] if isinstance(statement, ast.AnnAssign) else []
        )  # fmt: skip
        value = getattr(statement, "value", None)
        if any(isinstance(t, ast.Name) and t.id == attribute for t in targets) and isinstance(
            value, ast.Constant
        ):
            return value.value if isinstance(value.value, bool) else None
    return None
