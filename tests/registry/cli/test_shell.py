"""Every command ends with a message or JSON, on any terminal."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from refiners.cli import failure, main
from refiners.cli.report import print_table
from refiners.testing import LoopbackHub

from ..conftest import EDGES, EDGES_TOML, TOY_MODEL_TOML, Site
from .test_commands import PAINTER


def run(*arguments: str, charset: str = "utf-8", **environment: str) -> Result:
    return CliRunner(charset=charset).invoke(main, arguments, env=environment)


def refused(*arguments: str) -> dict[str, Any]:
    """Returns the error that a failing command prints as JSON."""
    result = run(*arguments, "--json")
    assert result.exit_code != 0
    return json.loads(result.stdout, parse_constant=pytest.fail)["error"]


@pytest.fixture
def toys(site: Site) -> Site:
    manifest = TOY_MODEL_TOML.replace("model:build", "model:paint")
    site.add("refiners-toy", files={"model.py": PAINTER, "model.toml": manifest})
    return site


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("lisst",), "usage"),
        (("list", "--jsn"), "usage"),
        (("info",), "usage"),
        (("info", "a", "b"), "usage"),
        (("generate", "x", "--steps", "many"), "usage"),
        (("generate", "x", "--size", "0"), "usage"),
        (("generate", "x", "--adapter", "=a.png"), "usage"),
        (("validate",), "usage"),
        (("validate", "/nowhere"), "usage"),
        (("catalog",), "usage"),
        (("info", "edgse"), "name-unknown"),
        (("new", "Edge"), "option"),
        (("sync", "--lock", "nowhere.lock", "--locked"), "lock"),
        (("tree", "./nowhere"), "model"),
    ],
)
def test_every_error_is_json_on_request(toys: Site, arguments: tuple[str, ...], code: str) -> None:
    error = refused(*arguments)
    assert error["code"] == code
    assert error["message"]
    assert {*error} == {"code", "message", "hint", "dist"}


def test_new_and_forget_print_json(tmp_path: Path, hub: LoopbackHub) -> None:
    facts = json.loads(run("new", "x-y", "--folder", str(tmp_path / "x"), "--json").stdout)
    assert len(facts["files"]) == 18
    assert json.loads(run("catalog", "forget", "--json").stdout) == {"forgotten": False}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise KeyError('oops')", "KeyError"),
        ("raise RecursionError", "RecursionError"),
        ("raise OSError(28, 'No space left on device')", "the disk is full"),
        ("raise MemoryError", "memory ran out"),
        ("raise SystemExit(7)", "ended the process with 7"),
        ("raise KeyboardInterrupt", "interrupted"),
    ],
)
def test_no_exception_prints_a_traceback(
    toys: Site, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    def fail() -> None:
        exec(code)

    monkeypatch.setattr("refiners.cli.inventory.scan", fail)
    result = run("list")
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert "Traceback" not in result.output
    assert words in refused("list")["message"]
    assert result.stdout == ""


def test_a_variable_asks_for_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise KeyError("oops")

    monkeypatch.setattr("refiners.cli.inventory.scan", fail)
    assert failure.TRACEBACK in run("list").stderr
    assert isinstance(run("list", REFINERS_TRACEBACK="1").exception, KeyError)


def test_output_of_plugins_does_not_mix_with_json(toys: Site, tmp_path: Path) -> None:
    toys.add_edges(code=f"print('hello')\n{EDGES}")
    out = str(tmp_path / "out.png")
    result = run("generate", "x", "--model", "toy", "--adapter", "edges", "--out", out, "--json")
    assert json.loads(result.stdout)["out"] == out
    assert "hello" in result.stderr


def test_infinite_numbers_become_strings_in_json(site: Site) -> None:
    site.add_edges(EDGES_TOML.replace("width = 2", "a = nan, b = inf, c = -inf, d = 1.5"))
    facts = json.loads(run("info", "edges", "--json").stdout, parse_constant=pytest.fail)
    assert facts["variants"][0]["facts"] == {"a": "nan", "b": "inf", "c": "-inf", "d": 1.5}


@pytest.mark.parametrize("charset", ["cp1252", "ascii", "latin-1", "cp437", "utf-8"])
def test_every_character_is_written_in_every_encoding(site: Site, charset: str) -> None:
    site.add_toy()
    site.add_edges(EDGES_TOML.replace("Follow edges", "Suit les contours \u2192 \u7dda"))
    for arguments in (("list",), ("info", "edges"), ("tree", "toy"), ("list", "--json")):
        result = run(*arguments, charset=charset)
        assert result.exit_code == 0, result.exception
    assert json.loads(run("list", "--json", charset=charset).stdout)["adapters"][0]["summary"] == (
        "Suit les contours \u2192 \u7dda"
    )


def test_trees_are_drawn_in_the_characters_of_an_encoding(site: Site) -> None:
    site.add_toy()
    assert "\u2514\u2500\u2500 body" in run("tree", "toy").stdout
    assert "`-- body" in run("tree", "toy", charset="cp1252").stdout
    site.add_edges(EDGES_TOML.replace("Follow edges", "edges \u2192 picture"))
    assert "edges -> picture" in run("list", charset="cp1252").stdout


@pytest.mark.parametrize("columns", [32, 60, 79])
def test_a_narrow_terminal_gets_a_block_for_each_row(toys: Site, columns: int) -> None:
    toys.add_edges(EDGES_TOML.replace("Follow edges", "Follow the edges of a picture " * 4))
    lines = run("list", COLUMNS=str(columns)).stdout.splitlines()
    assert max(map(len, lines)) <= columns
    assert "  edges" in lines
    assert "    package: refiners-edges 1.2" in lines
    assert [line.split()[-1] for line in lines if "summary" in line]  # words stay whole
    assert max(map(len, run("list").stdout.splitlines())) > columns


def test_paths_are_not_wrapped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table("Paths", ("name", "path"), [("a", "/a/path/that/is/longer/than/the/terminal/is")])
    assert "/a/path/that/is/longer/than/the/terminal/is" in capsys.readouterr().out


def test_a_closed_pipe_is_not_an_error() -> None:
    command = [sys.executable, "-m", "refiners", "list", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdout.close()
        assert started.stderr.read() == b""
