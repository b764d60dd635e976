"""A page that is executed from top to bottom in an empty folder, as a reader would type it.

| block | what is done |
|---|---|
| `sh` | its commands run |
| `console` | the commands after `$` run, and print what follows each |
| `python` | its code runs in one interpreter for each section of the page |
| `output` | the code above printed it |
| a `code-block` with a caption | it is written to the file of that name |
"""

from __future__ import annotations

import ast
import doctest
import json
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from markdown_it import MarkdownIt

from .environment import Environment

LOOP = """
import contextlib, io, json, os, sys, traceback
answers, names = sys.stdout, {"__name__": "__main__"}
for line in sys.stdin:
    folder, code, place = json.loads(line)
    os.chdir(folder)
    printed, error = io.StringIO(), ""
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(code, place, "exec"), names)
    except BaseException:
        error = traceback.format_exc()
    print(json.dumps([printed.getvalue(), error]), file=answers, flush=True)
"""
SHELL = "trap 'pwd > \"$PLACE\"' EXIT\nset -e -o pipefail\n{}"
KINDS = {"sh", "console", "python", "output", "file"}
CHECKS: dict[str, Any] = {".py": ast.parse, ".toml": tomllib.loads, ".json": json.loads}


class Block(NamedTuple):
    """A block of a page."""

    kind: str
    text: str
    section: str
    place: str
    """The page and the line, for messages."""
    file: str = ""


def blocks(page: Path) -> Iterator[Block]:
    """Yields the blocks of a page in order; a block of an unknown kind keeps its own name."""
    section = ""
    tokens = MarkdownIt().parse(page.read_text("utf-8"))
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "inline" and before is not None and before.type == "heading_open":
            section = token.content
        if token.type != "fence":
            continue
        place = f"{page.name}:{(token.map or [0])[0] + 1}"
        if not token.info.startswith("{code-block}"):
            yield Block(token.info, token.content, section, place)
            continue
        lines = token.content.splitlines(keepends=True)
        options = [line for line in lines if line.startswith(":")]
        files = [line.split(":", 2)[2].strip() for line in options if line.startswith(":caption:")]
        yield Block("file", "".join(lines[len(options) :]).lstrip("\n"), section, place, *files)


def fault(block: Block) -> str:
    """Returns what keeps a block from being executed, without running it; empty for nothing."""
    if block.kind not in KINDS:
        return f"{block.place} is a {block.kind or 'nameless'} block"
    if block.kind == "file" and not block.file:
        return f"{block.place} has no caption"
    suffix = ".py" if block.kind == "python" else Path(block.file).suffix
    try:
        CHECKS.get(suffix, str)(block.text)
    except ValueError as error:
        return f"{block.place} cannot be read: {error}"
    except SyntaxError as error:
        return f"{block.place} is not Python: {error}"
    return ""


@dataclass
class Reader:
    """A reader of a page at work in a folder of an environment."""

    environment: Environment
    folder: Path
    printed: str = ""
    section: str = ""
    interpreter: subprocess.Popen[str] | None = None

    def follow(self, page: Path) -> None:
        """Executes a page; the folder is then the one in which it ends."""
        try:
            for block in blocks(page):
                assert not fault(block), fault(block)
                if block.section != self.section:
                    self.close()
                    self.section = block.section
                getattr(self, f"_{block.kind}")(block)
        finally:
            self.close()

    def close(self) -> None:
        """Ends the interpreter of a section."""
        if self.interpreter is not None:
            self.interpreter.communicate()
            self.interpreter = None

    def _sh(self, block: Block) -> None:
        self._shell(block.text, block)

    def _console(self, block: Block) -> None:
        for session in f"\n{block.text}".split("\n$ ")[1:]:
            command, _, wanted = session.partition("\n")
            self._compare(wanted, self._shell(command, block), block)

    def _shell(self, text: str, block: Block) -> str:
        place = self.folder / ".place"
        done = self.environment.run(
            *("bash", "-c", SHELL.format(text)),
            folder=self.folder,
            variables={"PLACE": str(place)},
            code=None,
        )
        assert done.code == 0, f"{block.place}: {text}\n{done.out[-3000:]}\n{done.err[-3000:]}"
        self.folder = Path(place.read_text().strip())
        place.unlink()
        return done.out

    def _python(self, block: Block) -> None:
        if self.interpreter is None:
            self.interpreter = subprocess.Popen(
                [self.environment.python, "-c", LOOP],
                cwd=self.folder,
                env=self.environment.environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self.interpreter.stdin is not None
        assert self.interpreter.stdout is not None
        request = [str(self.folder), block.text, block.place]
        self.interpreter.stdin.write(f"{json.dumps(request)}\n")
        self.interpreter.stdin.flush()
        self.printed, error = json.loads(self.interpreter.stdout.readline())
        assert not error, error

    def _output(self, block: Block) -> None:
        self._compare(block.text, self.printed, block)

    def _file(self, block: Block) -> None:
        path = self.folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, "utf-8")

    def _compare(self, wanted: str, printed: str, block: Block) -> None:
        checker = doctest.OutputChecker()
        matches = checker.check_output(
            f"{wanted.rstrip()}\n", f"{printed.rstrip()}\n", doctest.ELLIPSIS
        )
        assert matches, f"{block.place} should print\n{wanted}\nbut prints\n{printed}"
