"""Finds the commands and names that pages, help texts and messages mention."""

import ast
import re
from collections.abc import Iterator

FENCE = re.compile(r"^ *```([^\n]*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
COMMAND = re.compile(
    r"(?<![\w./:@{-])(?<!import )(?<!mporting )refiners +(?!is )(?=[a-z-])((?:\\\n|[^\n|;&`#)])+)"
)
IMPORT = re.compile(r"^ *from (refiners[\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)
QUOTED = re.compile(r'(?<=[ =])"[^"\n]*"(?=[\s`])')
HOLE = "HOLE"
"""The place of a value in a message."""


def code(page: str) -> Iterator[str]:
    """Yields the code of a page: its blocks, then what is in backticks elsewhere.

    Blocks with a caption show another library.
    """
    for kind, block in FENCE.findall(page):
        if not (kind.startswith("{code-block}") and block.startswith(":caption:")):
            yield block
    yield from (re.sub(r"\s+", " ", text) for _, text in SPAN.findall(FENCE.sub("", page)))


def messages(source: str) -> Iterator[str]:
    """Yields the texts of a module: docstrings, messages, and commands that it puts together."""
    tree = ast.parse(source)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
             for part in node.values}  # fmt: skip
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in parts:
                yield text
            case ast.JoinedStr(values=values):
                yield "".join(str(v.value) if isinstance(v, ast.Constant) else HOLE for v in values)
            case ast.Call(func=ast.Name(id="quoted"), args=[*words]):
                yield " ".join(str(w.value) if isinstance(w, ast.Constant) else HOLE for w in words)
            case _:
                pass


def command_lines(text: str) -> Iterator[list[str]]:
    """Yields the words after `refiners` of each command in a text, to the end of a sentence."""
    for match in COMMAND.finditer(QUOTED.sub(HOLE, text)):
        words: list[str] = []
        for word in match[1].replace("\\\n", " ").split():
            bare = word.rstrip(".,;:'\"!?")
            words.append(bare.strip("'\"[]("))
            if bare != word and not word.endswith(('"', "'")):
                break
        yield words


def imported(text: str) -> Iterator[str]:
    """Yields the dotted names that a block of code imports from Refiners and its packages."""
    for module, names in IMPORT.findall(text):
        for name in re.sub(r"#[^\n]*", "", names).strip("() \n").split(","):
            if bare := name.strip().partition(" as ")[0]:
                yield f"{module}.{bare}"
