"""`refiners examples` lists, prints and runs the examples that packages ship."""

import json
import sys
from pathlib import Path

import pytest
import refiners
from click.testing import CliRunner, Result
from refiners.cli import main

from ..conftest import EDGES, EDGES_TOML, Site

SCRIPT = '''"""Two squares.

More words.
"""

import sys

from PIL import Image

import refiners

if False:
    refiners.load_adapter("edges", None)
print("drawing", len(sys.argv))
pictures = {"red": Image.new("RGB", (8, 8), "red"), "both": [Image.new("RGB", (8, 8))] * 2}
'''
WORDS = '"""Words alone."""\nprint("hello")\n'
PNG = b"\x89PNG\r\n\x1a\n"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["examples", *map(str, arguments)])


@pytest.fixture
def edges(site: Site) -> Path:
    """The folder of a package with two examples."""
    files: dict[str, str | bytes] = {
        "adapter.py": EDGES,
        "adapter.toml": EDGES_TOML,
        "examples/squares.py": SCRIPT,
        "examples/squares.png": PNG,
        "examples/words.py": WORDS,
        "examples/_shared.py": "",
    }
    return site.add("refiners-edges", files=files)


def test_examples_are_listed_without_importing_the_package(edges: Path):
    facts = json.loads(run("--json").stdout)["examples"]
    assert [(each["id"], each["title"], each["loads"]) for each in facts] == [
        ("refiners-edges:squares", "Two squares", ["edges"]),
        ("refiners-edges:words", "Words alone", []),
    ]
    assert facts[0]["picture"] == str(edges / "examples/squares.png")
    assert facts[1]["picture"] is None
    assert "refiners_edges" not in sys.modules
    assert "squares  Two squares  edges  refiners-edges 1.2" in run().stdout


def test_a_package_has_all_its_examples_and_an_adapter_those_that_load_it(edges: Path):
    assert "words" in run("Refiners_Edges").stdout
    result = run("edges")
    assert "squares" in result.stdout
    assert "words" not in result.stdout


def test_a_package_with_a_command_alone_has_examples(site: Site):
    points = "[refiners.commands]\ncount = refiners_count.command:count\n"
    site.add("refiners-count", files={"examples/a.py": WORDS}, entry_points=points)
    assert [example.id for example in refiners.examples("refiners-count")] == ["refiners-count:a"]


def test_show_prints_the_script_with_escapes_made_visible(edges: Path):
    (edges / "examples/squares.py").write_text(SCRIPT + "# \x1b[2J\n")
    shown = run("edges", "--show", "squares").stdout
    assert shown.startswith('"""Two squares.')
    assert shown.endswith("# \\x1b[2J\n")


def test_run_names_the_package_and_writes_the_pictures(edges: Path, tmp_path: Path):
    from PIL import Image

    out = tmp_path / "out.png"
    result = run("--run", "squares", "--out", out)
    assert result.exit_code == 0
    script = edges / "examples/squares.py"
    assert result.stderr.startswith(f"running squares of refiners-edges 1.2: {script}\n")
    assert "drawing 1" in result.stdout
    with Image.open(out) as sheet:
        assert sheet.getpixel((20, 40)) == (255, 0, 0)
        assert sheet.size == (12 + 2 * (192 + 12), 12 + 16 + 2 * (192 + 12))


def test_an_example_may_print_its_result(edges: Path, tmp_path: Path):
    result = run("refiners-edges", "--run", "words", "--json")
    facts = json.loads(result.stdout)
    assert (facts["name"], facts["pictures"], facts["out"]) == ("words", 0, None)
    assert "hello" in result.stderr
    result = run("--run", "words", "--out", tmp_path / "a.png")
    assert (result.exit_code, "words makes no pictures" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("x = 1\nraise KeyError('gone')", "at line 2: KeyError: 'gone'"),
        ("import sys\nsys.exit(3)", "at line 2: SystemExit: 3"),
        ("def f(:", "at line 1: SyntaxError"),
        ("import refiners\nrefiners.load_model('tyo')", "at line 2: UnknownNameError"),
        ("pictures = 3", "leaves a int in `pictures`"),
        ("pictures = [3]", "leaves a int in `pictures`"),
    ],
)
def test_a_failing_example_names_its_package_and_line(edges: Path, script: str, words: str):
    (edges / "examples/squares.py").write_text(script)
    error = json.loads(run("--run", "squares", "--json").stdout)["error"]
    assert (error["code"], error["dist"]) == ("plugin", "refiners-edges")
    assert "refiners-edges:squares" in error["message"]
    assert words in error["message"]
    assert error["hint"]


def test_a_policy_refuses_to_run_an_example(edges: Path, tmp_path: Path, monkeypatch):
    rules = tmp_path / "policy.toml"
    rules.write_text('schema = 1\n[packages]\ndeny = ["refiners-edges"]\n')
    monkeypatch.setenv("REFINERS_POLICY", str(rules))
    result = run("--run", "words")
    assert result.exit_code == 4
    assert "hello" not in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ["--run", "sqares"],
            2,
            "no example is called 'sqares'; the installed packages have squares",
        ),
        (["edges", "--show", "words"], 2, "edges has squares"),
        (["--run", "squares", "--show", "words"], 2, "--run and --show exclude each other"),
        (["--out", "a.png"], 2, "--out needs --run EXAMPLE"),
        (["--run", "squares", "--out", "a.txt"], 2, "does not end in the suffix of a picture"),
        (["edgse"], 2, "Did you mean"),
    ],
)
def test_a_wrong_request_has_something_to_type(edges: Path, arguments, code, words):
    result = run(*arguments)
    assert result.exit_code == code
    assert words in result.stderr
    assert "drawing" not in result.stdout


def test_an_example_of_several_packages_needs_its_package(edges: Path, site: Site):
    points = "[refiners.commands]\ncount = refiners_count.command:count\n"
    site.add("refiners-count", files={"examples/words.py": WORDS}, entry_points=points)
    assert "Name one of them, such as refiners-count:words" in run("--run", "words").stderr
    assert run("--run", "refiners-edges:words").exit_code == 0
    assert run("refiners-count", "--run", "words").exit_code == 0


def test_a_package_without_examples_is_named(site: Site):
    site.add_edges()
    assert run("refiners-edges").stdout == "refiners-edges has no examples.\n"
    assert run().stdout == "No installed package has examples.\n"
