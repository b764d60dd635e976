"""The mechanical part of the house's English, over every source and page of the repository."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSES = ("refiners_core", "registry", "plugins", "tests", "examples", "benchmarks", "docs")
BUILT = {"_build", "gallery", "build", "node_modules"}
PAGES = sorted(
    path
    for pattern in ("*.md", *(f"{house}/**/*" for house in HOUSES))
    for path in ROOT.glob(pattern)
    if path.suffix in (".py", ".md", ".template") and not BUILT & {*path.parts}
)
PAGES.remove(Path(__file__))  # quotes what it looks for
BAR = re.compile(
    r"\b(is|are) no (?!longer|more|less)[a-z]+|[Ww]hat is said|\bSays\b|\b(is|are) told\b"
)
OPENING = re.compile(r"(What|Says)\b")
PRONOUN = re.compile(r"^ {4}[\w., |]+: (It|They|One|None)\b", re.MULTILINE)
VAGUE = {"said", "one", "found", "told", "asked", "own", "here"}


def faults(source: str, is_shipped: bool) -> Iterator[str]:
    """Yields what the house style refuses in a Python source; names only in what is shipped."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            raises = (
                (ast.get_docstring(node) or "").partition("\nRaises:\n")[2].partition("\n\n")[0]
            )
            yield from (f"Raises: {match[0].strip()}" for match in PRONOUN.finditer(raises))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = str(node.value.value)
            if OPENING.match(text):
                yield f"opens with {text.split()[0]}: {text[:60]}"
        name = ""
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        if is_shipped and name in VAGUE:
            yield f"line {getattr(node, 'lineno', 0)}: a variable is called {name}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_source_or_page_keeps_to_plain_english(path):
    text = path.read_text()
    lines = [line.strip() for line in text.splitlines() if BAR.search(line)]
    if path.suffix == ".py":
        lines += faults(text, is_shipped="tests" not in path.parts)
    assert lines == []


@pytest.mark.parametrize(
    "source",
    [
        '"""What is kept."""',
        'def f():\n    """Says a word."""',
        'x = 1\n"""What x is."""',
        'def f():\n    """Reads.\n\n    Raises:\n        KeyError: It is empty.\n    """',
        "for one in range(3): pass",
        "def f(told): pass",
    ],
)
def test_a_fault_is_noticed(source):
    assert len([*faults(source, is_shipped=True)]) == 1
