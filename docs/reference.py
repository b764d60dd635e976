"""Writes a page for each public module; Sphinx fills it from the docstrings."""

import ast
import inspect
import shutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from sphinx.pycode import ModuleAnalyzer

from refiners_core.errors import RefinersError
from refiners_core.public import MODULES, public_names


def public() -> Mapping[str, tuple[str, ...]]:
    """Returns the public names of each public module."""
    return {module: public_names(module) for module in MODULES}


def write_reference(folder: Path) -> None:
    """Replaces the pages of the reference by new ones."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, text in pages(public()).items():
        (folder / f"{name}.md").write_text(text)


def pages(names_of: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Returns the text of each page by its name.

    An object that several modules offer is documented in the first one, and linked from the others.
    """
    homes: dict[tuple[str, str], str] = {}
    written = {"index": _index(names_of), "errors": _errors(names_of)}
    for module, names in names_of.items():
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


def _index(names_of: Mapping[str, tuple[str, ...]]) -> str:
    rows = [
        f"- [{module}]({module}.md): {(import_module(module).__doc__ or '').partition(chr(10))[0]}"
        for module in names_of
    ]
    rows.append("- [Errors](errors.md): every error with its code and exit code")
    toctree = "\n".join(["```{toctree}", ":hidden:", "", *names_of, "errors", "```"])
    return "\n".join(["# Reference", "", *rows, "", toctree, ""])


def _errors(names_of: Mapping[str, tuple[str, ...]]) -> str:
    """Returns a table of the errors that users meet."""
    rows: dict[tuple[str, str], str] = {}
    for module, names in names_of.items():
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
