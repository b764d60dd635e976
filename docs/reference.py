"""Writes a page for each public module; Sphinx fills it from the docstrings."""

import ast
import inspect
import pkgutil
import shutil
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from sphinx.pycode import ModuleAnalyzer

from refiners_core.errors import RefinersError

ROOTS: Final = (
    "refiners_core",
    "refiners",
    "refiners_core.condition",
    "refiners_core.errors",
    "refiners_core.hookspecs",
    "refiners_core.layers",
    "refiners_core.models",
    "refiners_core.picture",
    "refiners_core.testing",
    "refiners_core.weights",
)
"""The public modules; a package that does not list its names stands for its modules."""


def public_names() -> Mapping[str, tuple[str, ...]]:
    """Returns the public names of each public module."""
    modules = (module for root in ROOTS for module in _modules(import_module(root)))
    return {module.__name__: names for module in modules if (names := _names(module))}


def write_reference(folder: Path) -> None:
    """Replaces the pages of the reference by new ones."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, text in pages(public_names()).items():
        (folder / f"{name}.md").write_text(text)


def pages(public: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Returns the text of each page by its name.

    An object that several modules offer is documented in the first one, and linked from the others.
    """
    homes: dict[tuple[str, str], str] = {}
    written = {"index": _index(public), "errors": _errors(public)}
    for module, names in public.items():
        parts = [f"# {module}\n", _directive(f".. automodule:: {module}\n   :no-index:")]
        for name in sorted(names, key=str.lower):
            value: Any = getattr(import_module(module), name)
            home = homes.setdefault(definition(module, name), f"{module}.{name}")
            if home == f"{module}.{name}":
                parts.append(_documented(module, name, value))
            else:
                parts.append(f"`{name}`: see {{py:obj}}`{home}`.\n")
        written[module] = "\n".join(parts)
    return written


def _index(public: Mapping[str, tuple[str, ...]]) -> str:
    rows = [
        f"- [{module}]({module}.md): {(import_module(module).__doc__ or '').partition(chr(10))[0]}"
        for module in public
    ]
    rows.append("- [Errors](errors.md): every error with its code and exit code")
    toctree = "\n".join(["```{toctree}", ":hidden:", "", *public, "errors", "```"])
    return "\n".join(["# Reference", "", *rows, "", toctree, ""])


def _errors(public: Mapping[str, tuple[str, ...]]) -> str:
    """Returns a table of the errors that users meet."""
    rows: dict[tuple[str, str], str] = {}
    for module, names in public.items():
        for name in names:
            kind: Any = getattr(import_module(module), name)
            if inspect.isclass(kind) and issubclass(kind, RefinersError):
                words = f"[{kind.page.partition('#')[2]}](../{Path(kind.page).name})"
                summary = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")
                rows.setdefault(
                    definition(module, name),
                    f"| `{kind.code}` | {kind.exit_code} | {{py:exc}}`{module}.{name}` | {summary} "
                    f"| {words if kind.page else ''} |",
                )
    head = ["| code | exit code | error | meaning | words |", "|---|---|---|---|---|"]
    return "\n".join(["# Errors", "", *head, *sorted(rows.values()), ""])


def definition(module: str, name: str) -> tuple[str, str]:
    """Returns the module that defines what a public module offers, and its name there."""
    value: Any = getattr(import_module(module), name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return value.__module__, value.__qualname__
    for node in ast.walk(ast.parse(inspect.getsource(import_module(module)))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return definition(node.module, alias.name)
    return module, name


def _documented(module: str, name: str, value: Any) -> str:
    path = f"{module}.{name}"
    if inspect.isclass(value):
        kind = "exception" if issubclass(value, BaseException) else "class"
        return _directive(f".. auto{kind}:: {path}\n   :members:\n   :show-inheritance:")
    if inspect.isfunction(value):
        return _directive(f".. autofunction:: {path}")
    home, defined = definition(module, name)
    docstrings = ModuleAnalyzer.for_module(home).find_attr_docs()
    lines = "\n   ".join(docstrings.get(("", defined), []))
    return _directive(f".. py:data:: {name}\n   :module: {module}\n\n   {lines}")


def _directive(text: str) -> str:
    return f"```{{eval-rst}}\n{text}\n```\n"


def _modules(module: ModuleType) -> Iterator[ModuleType]:
    yield module
    if not hasattr(module, "__all__"):
        for _, name, _ in pkgutil.iter_modules(getattr(module, "__path__", ())):
            yield from _modules(import_module(f"{module.__name__}.{name}"))


def _names(module: ModuleType) -> tuple[str, ...]:
    if hasattr(module, "__all__"):
        return tuple(module.__all__)
    documented = ModuleAnalyzer.for_module(module.__name__).find_attr_docs()
    constants = [name for owner, name in documented if not owner]
    defined = [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) or inspect.isclass(value)
        if value.__module__ == module.__name__
    ]
    return tuple(name for name in dict.fromkeys([*defined, *constants]) if not name.startswith("_"))
