"""Everything that README.md and CONTRIBUTING.md tell a reader to type is typed here."""

import doctest
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFINERS = str(Path(sys.executable).with_name("refiners"))
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *(str(page.relative_to(ROOT)) for page in sorted(ROOT.glob("plugins/*/README.md"))),
)
DEMO = "refiners demo --out demo.png"
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, kind: str) -> Iterator[str]:
    for found, text in BLOCK.findall((ROOT / page).read_text()):
        if found == kind:
            yield text


def commands(kind: str) -> list[str]:
    lines = [line for page in PAGES for text in blocks(page, kind) for line in text.splitlines()]
    if kind == "console":
        return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return list(dict.fromkeys(line for line in lines if line))


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo has run, as the pages assume."""
    folder = tmp_path_factory.mktemp("reader")
    run([REFINERS, *shlex.split(DEMO)[1:]], folder)
    return folder


@pytest.mark.parametrize("command", commands("sh"))
def test_every_command_works(command: str, folder: Path):
    program, *arguments = shlex.split(command)
    if command == DEMO:
        assert (folder / "demo.png").stat().st_size > 10_000
    elif program == "refiners":
        run([REFINERS, *arguments], folder)
    elif program == "make":  # the recipe itself is what runs this test
        assert ".venv" in run(["make", "--dry-run", "--always-make", *arguments], ROOT)
    elif program == "pip":
        dry = ["--dry-run", "--no-deps", "--no-build-isolation", "--quiet"]
        run([sys.executable, "-m", "pip", *arguments[:1], *dry, *arguments[1:]], ROOT)
    else:
        pytest.fail(f"nothing here runs {program!r}")


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page, "python"))])
def test_the_python_of_every_page_works(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for text in blocks(page, "python"):
        exec(compile(text, page, "exec"), names)
    if "image" in names:
        assert names["image"].size == (64, 64)


@pytest.mark.parametrize("page", PAGES)
def test_what_the_pages_show_is_what_is_printed(page: str, folder: Path):
    for text in blocks(page, "console"):
        first, _, wanted = text.partition("\n")
        program, *arguments = shlex.split(first.removeprefix("$ "))
        assert program == "refiners"
        printed = run([REFINERS, *arguments], folder)
        matches = doctest.OutputChecker().check_output(wanted, printed, doctest.ELLIPSIS)
        assert matches, f"{first}\nshould print\n{wanted}\nbut prints\n{printed}"


def test_the_pages_have_something_to_type():
    assert len(commands("sh")) >= 10
    assert len(commands("console")) >= 1
