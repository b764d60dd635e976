"""The house English: phrases, openings of docstrings and names of variables that are refused."""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from inspect import cleandoc
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PHRASE = re.compile(
    r"\b(?:is|are) no (?!longer|more|less)[a-z]+|[Ww]hat is said|\bSay[s]\b|is[ ]told"
)
OPENING = re.compile(r"(?:What|Say[s])\b")
RAISES = re.compile(r"^Raises:\n((?: +.*\n?|\n)*)", re.MULTILINE)
PRONOUN = re.compile(r"^ {4}[\w., ]+: (?:It|They|One|None)\b", re.MULTILINE)
VAGUE = {"said", "one", "found", "told", "asked", "own", "here"}
NAMED = re.compile(r"refiners_core/|registry/|plugins/[^/]+/src/")
"""The folders in which the names of variables are checked."""


def files(*patterns: str) -> list[str]:
    """Returns the paths of the repository that match, without ignored files."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(path for path in {*listing.stdout.splitlines()} if (ROOT / path).is_file())


def phrases(text: str) -> Iterator[str]:
    """Yields the phrases that idiomatic English avoids, each with its line."""
    for number, line in enumerate(text.splitlines(), 1):
        if match := PHRASE.search(line):
            yield f"{number}: {match[0]!r}"


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yields the line and text of every docstring and attribute doc."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, cleandoc(text)
            case _:
                pass


def openings(source: str) -> Iterator[str]:
    """Yields the docstrings that do not open with a verb or with the thing itself."""
    for number, text in docstrings(source):
        if OPENING.match(text):
            yield f"{number}: opens with {text[:40]!r}"


def raises(source: str) -> Iterator[str]:
    """Yields the entries of `Raises:` that do not name their subject."""
    for number, text in docstrings(source):
        for section in RAISES.findall(text):
            for entry in PRONOUN.findall(section):
                yield f"{number}: raises {entry.strip()!r}"


def variables(source: str) -> Iterator[str]:
    """Yields the variables and arguments whose names do not tell what they hold."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                pass
            case ast.arg(arg=name) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                pass
            case ast.ExceptHandler(name=str(name)) | ast.alias(asname=str(name)):
                pass
            case _:
                continue
        if name in VAGUE:
            yield f"{node.lineno}: is named {name!r}"


RULES: tuple[tuple[Callable[[str], Iterator[str]], list[str]], ...] = (
    (phrases, files("*.py", "*.md", "*.template")),
    (openings, files("*.py")),
    (raises, files("*.py")),
    (variables, [path for path in files("*.py") if NAMED.match(path)]),
)


@pytest.mark.parametrize(("rule", "paths"), RULES, ids=[rule.__name__ for rule, _ in RULES])
def test_the_english_of_the_house_is_kept(rule, paths):
    faults = [f"{path}:{fault}" for path in paths for fault in rule((ROOT / path).read_text())]
    assert paths
    assert not faults, "\n".join([f"{len(faults)} faults:", *faults])


# --- the rules themselves --------------------------------------------------------------------

NO, SAYS = "is" + " no", "Say" + "s"


@pytest.mark.parametrize(
    ("rule", "source", "fault"),
    [
        (phrases, f"\nA name {NO} key.", f"2: '{NO} key'"),
        (phrases, f"# {SAYS} which", f"1: '{SAYS}'"),
        (phrases, "what " + "is said", "1: 'what " + "is said'"),
        (phrases, "the hook is" + " told", "1: 'is" + " told'"),
        (openings, 'def f():\n    """What it does."""', "2: opens with 'What it does.'"),
        (openings, f'x = 1\n"""{SAYS} it."""', f"2: opens with '{SAYS} it.'"),
        (
            raises,
            '"""Reads.\n\nRaises:\n    KeyError: It is empty.\n"""',
            "1: raises 'KeyError: It'",
        ),
        (
            raises,
            'class A:\n    """A.\n\n    Raises:\n        B: Well.\n        C, D: None is.\n    """',
            "2: raises 'C, D: None'",
        ),
        (variables, "for one in x: pass", "1: is named 'one'"),
        (variables, "if found := f(): pass", "1: is named 'found'"),
        (variables, "def f(*, told): pass", "1: is named 'told'"),
        (variables, "try: pass\nexcept E as said: pass", "2: is named 'said'"),
        (variables, "import a as here", "1: is named 'here'"),
    ],
)
def test_a_fault_is_found(rule, source, fault):
    assert list(rule(source)) == [fault]


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (phrases, f"It {NO} longer here, and {NO} more than that."),
        (openings, '"""Whether a name is free."""\nx = """What is this string."""'),
        (raises, '"""Reads.\n\nRaises:\n    KeyError: The key is empty. It may be None.\n"""'),
        (raises, '"""Reads.\n\nReturns:\n    x: None if it is empty.\n"""'),
        (variables, "print(one)\nf(told=1)\nx.own = 2"),
    ],
)
def test_plain_english_is_accepted(rule, source):
    assert list(rule(source)) == []
