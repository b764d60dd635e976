"""Everything that the pages tell a reader to type is typed here, and prints what they show.

`python` and `sh` blocks run, `console` blocks run and show what is printed, an `output` block shows
what the `python` block above it prints. A `py` block needs a download, so it is only compiled.
"""

import contextlib
import doctest
import functools
import io
import json
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from refiners.cli import main
from refiners_playground import demo
from sybil import Document, Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

from refiners_core.measure import Settings
from refiners_core.surgery import key

ROOT = Path(__file__).parents[2]
WRITTEN = ("*.md", "guide/**/*.md", "decisions/*.md")
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "train/README.md")),
        *ROOT.glob("plugins/*/README.md"),
        *(page for pattern in WRITTEN for page in (ROOT / "docs").glob(pattern)),
    ]
)
DEMO = "refiners demo --out demo.png"
execute = PythonEvaluator()


def run_python(example: Example) -> None:
    printed = example.namespace["printed"] = io.StringIO()
    with contextlib.redirect_stdout(printed):
        execute(example)


def compare_output(example: Example) -> None:
    check("the block above", example.parsed, example.namespace["printed"].getvalue())


def run_commands(example: Example) -> None:
    for command in example.parsed.replace("\\\n", " ").splitlines():
        if command and not command.startswith("#"):
            code, printed = run(command, Path.cwd())
            assert code == 0, f"{command} ends with {code}:\n{printed}"


def run_console(example: Example) -> None:
    for session in f"\n{example.parsed}".split("\n$ ")[1:]:
        command, _, wanted = session.partition("\n")
        _, printed = run(command, Path.cwd())
        check(command, wanted, printed)


def check(source: str, wanted: str, printed: str) -> None:
    matches = doctest.OutputChecker().check_output(
        wanted.rstrip() + "\n", printed.rstrip() + "\n", doctest.ELLIPSIS
    )
    assert matches, f"{source} should print\n{wanted}\nbut prints\n{printed}"


@functools.cache
def run(command: str, folder: Path) -> tuple[int, str]:
    """Runs a command once in a folder, whichever pages show it; returns its exit code and what it
    prints."""
    message, pipe, piped = command.partition(" | ")
    program, *arguments = shlex.split(piped if pipe else command)
    if program == "refiners":
        key._serials.clear()  # as in a process of its own
        words = shlex.split(message)[1:] if pipe else []  # of echo
        done = CliRunner().invoke(main, arguments, " ".join(words) + "\n", prog_name="refiners")
        return done.exit_code, done.output if done.exit_code else done.stdout
    if program == "make":  # the recipe itself is what runs this test
        printed = process(["make", "--dry-run", "--always-make", *arguments])
        assert ".venv" in printed
        return 0, printed
    assert program == "pip", f"nothing here runs {program!r}"
    dry = ["--dry-run", "--no-deps", "--no-build-isolation", "--quiet"]
    return 0, process([sys.executable, "-m", "pip", *arguments[:1], *dry, *arguments[1:]])


def process(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout


def compile_python(example: Example) -> None:
    compile(example.parsed, example.path, "exec")


EVALUATORS = {
    "python": run_python,
    "output": compare_output,
    "sh": run_commands,
    "console": run_console,
    "py": compile_python,
    "toml": lambda example: tomllib.loads(example.parsed) and None,
    "json": lambda example: json.loads(example.parsed) and None,
}
SHOWN = {"", "text"}
sybil = Sybil([CodeBlockParser(*each) for each in EVALUATORS.items()])


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a short demo has run, as the pages assume."""
    folder = tmp_path_factory.mktemp("reader")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patched:
        patched.setattr(demo, "SETTINGS", Settings(steps=4, seed=7))
        patched.setattr(demo, "COUNT", 2)
        patched.setattr(demo, "COMPARED", 3)
        code, printed = run(DEMO, folder)
    assert code == 0, printed
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_works(
    page: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    needs_demo = "demo-" in page.read_text() or DEMO in page.read_text()
    monkeypatch.chdir(request.getfixturevalue("demo_folder" if needs_demo else "tmp_path"))
    key._serials.clear()
    document = sybil.parse(page)
    for example in document.examples():
        example.evaluate()
    if page.name == "README.md" and "image" in document.namespace:
        assert document.namespace["image"].size == (64, 64)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_is_of_a_kind_that_is_looked_at(page: Path):
    lexer = FencedCodeBlockLexer(language=r"[^\n]*", mapping={"language": "kind"})
    kinds = {region.lexemes["kind"] for region in lexer(Document(page.read_text(), str(page)))}
    unknown = {kind for kind in kinds - EVALUATORS.keys() - SHOWN if not kind.startswith("{")}
    assert not unknown


def test_the_command_is_a_script_of_this_environment():
    script = Path(sys.executable).with_name("refiners")
    assert "1.0" in process([str(script), "--version"])


def test_the_demo_has_made_its_picture(demo_folder: Path):
    assert (demo_folder / "demo.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_demo_measures_effects_and_ejects_exactly(tmp_path: Path, monkeypatch: Any):
    monkeypatch.chdir(tmp_path)
    table = json.loads(run(f"{DEMO} --json", tmp_path)[1])["rows"]
    rows = {row["name"]: row["value"] for row in table}
    assert [value for name, value in rows.items() if "eject" in name] == ["bit-equal"] * 2
    before, after = map(float, rows["ControlNet: edge F1"].split(" -> "))
    assert after > before + 0.4


def test_the_pages_have_something_to_type():
    commands = [
        line
        for page in PAGES
        for example in sybil.parse(page).examples()
        if example.region.evaluator is run_commands
        for line in example.parsed.splitlines()
    ]
    assert len(set(commands)) >= 10
    assert sum(text.count("```console") for text in map(Path.read_text, PAGES)) >= 1
