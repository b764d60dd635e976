"""Authors get a check before publication."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from refiners.cli import main

from ..conftest import EDGES_TOML

PROJECT = """
[build-system]
build-backend = "setuptools.build_meta"
[project]
name = "refiners-edges"
dependencies = ["refiners-core"]
[project.entry-points."refiners.adapters"]
edges = "refiners_edges:adapter.toml"
[tool.setuptools.package-data]
refiners_edges = ["*.toml"]
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    folder = tmp_path / "plugin"
    package = folder / "src" / "refiners_edges"
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT)
    (package / "adapter.toml").write_text(EDGES_TOML)
    (package / "adapter.py").write_text("class Edges: pass")
    return folder


def problems(folder: Path, *options: str) -> str:
    result = run("validate", folder, *options, "--json")
    assert result.exit_code in (0, 1), result.output
    return "\n".join(finding["what"] for finding in json.loads(result.stdout)["findings"])


def test_a_valid_plugin_is_valid(plugin: Path) -> None:
    assert run("validate", plugin).exit_code == 0
    assert run("validate", plugin / "src" / "refiners_edges" / "adapter.toml").exit_code == 0
    assert run("validate", plugin / "src").exit_code == 2


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("pyproject.toml", "refiners-edges", "edges", 'should begin with "refiners-"'),
        ("pyproject.toml", '["refiners-core"]', "[]", "does not depend on refiners-core"),
        ("pyproject.toml", '"refiners-core"', '"refiners>=1"', "refiners is another project"),
        ("pyproject.toml", "refiners_edges:", "refiners_egdes:", "does not name a file"),
        ("pyproject.toml", "refiners_edges:adapter.toml", "a.b:C", "should be 'package:adapter"),
        ("pyproject.toml", '["*.toml"]', "[]", "left out of the wheel"),
        ("pyproject.toml", "[project.entry-points", "[x.entry-points", "no entry point"),
        ("pyproject.toml", "[project]", "[project", "cannot be read"),
        ("pyproject.toml", '"refiners_edges:adapter.toml"', "[1]", "should be 'package:adapter"),
        ("src/refiners_edges/adapter.toml", "summary", "sumary", "Did you mean 'summary'"),
        ("src/refiners_edges/adapter.toml", "edges.adapter:", "edges.other:", "in no module"),
        ("src/refiners_edges/adapter.py", "Edges", "Egdes", "adapter.py does not define Edges"),
        ("src/refiners_edges/adapter.py", "class", "clas", "cannot be read"),
    ],
)
def test_a_problem_is_named(plugin: Path, file: str, old: str, new: str, problem: str) -> None:
    path = plugin / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert problem in problems(plugin)
    assert run("validate", plugin).exit_code == 1


DATA = "[tool.setuptools.package-data] refiners_edges should be a list of patterns"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('= ["*.toml"]', '= "adapter.toml"', DATA),
        ('= ["*.toml"]', "= 3", DATA),
        ('= ["*.toml"]', "= [3]", DATA),
        ('= ["*.toml"]', '= [""]', "left out of the wheel"),
        (
            '.package-data]\nrefiners_edges = ["*.toml"]',
            "]\npackage-data = 3",
            "package-data should",
        ),
        ('.setuptools.package-data]\nrefiners_edges = ["*.toml"]', "]\nsetuptools = 3", "a table"),
        ('= "setuptools.build_meta"', "= 3", "build-backend should be a text"),
        ('"refiners-edges"', "3", "[project] name should be a text"),
        ('["refiners-core"]', "3", "[project] dependencies should be a list"),
        ('["refiners-core"]', "[3]", "[project] dependencies should be a list"),
        ('[project.entry-points."refiners.adapters"]', "entry-points = 3\n[x]", "a table"),
        ('."refiners.adapters"]\nedges = ', ']\n"refiners.adapters" = ', "a table"),
        *(
            ("[project]", f"[project]\n{line}", f"[project] {line.partition(' ')[0]} should be")
            for line in (
                *("version = 1.0", "license = 3", "readme = [1]", 'keywords = "x"'),
                *("classifiers = 3", "license-files = 3", 'urls = ["https://x"]', "urls = 3"),
            )
        ),
        ("[project]", '[project]\nlicense-files = ["/LICENSE"]', "is not a relative pattern"),
        ("[project]", '[project]\nlicense-files = ["/etc/*"]', "is not a relative pattern"),
        ("[project]", '[project]\nlicense-files = [""]', "is not a relative pattern"),
        ("[project]", "[project]\nurls = {Home = 3}", "[project.urls] Home should be a text"),
    ],
)
def test_a_wrong_type_in_the_project_is_named(
    plugin: Path, old: str, new: str, problem: str
) -> None:
    path = plugin / "pyproject.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert problem in problems(plugin, "--strict")


def test_the_project_is_a_table(plugin: Path) -> None:
    for text, problem in (("project = 3", "project should be a table"), ("", "has no table")):
        (plugin / "pyproject.toml").write_text(text)
        assert problem in problems(plugin)


def test_the_class_may_be_that_of_a_package_it_depends_on(plugin: Path) -> None:
    manifest, project = plugin / "src/refiners_edges/adapter.toml", plugin / "pyproject.toml"
    manifest.write_text(manifest.read_text().replace("refiners_edges.", "refiners_lora."))
    assert "which does not depend on refiners-lora" in problems(plugin)
    text = project.read_text()
    project.write_text(text.replace('"refiners-core"', '"refiners-core", "refiners_lora>=1"'))
    assert problems(plugin) == ""


def test_strict_requires_every_file_to_be_pinned(plugin: Path) -> None:
    manifest = plugin / "src" / "refiners_edges" / "adapter.toml"
    file = '[adapter.edges.weights.w]\nsource = "hf:org/edges"\nfile = "w.bin"\n'
    manifest.write_text(f'{EDGES_TOML}{file}format = "pickle"\n')
    assert problems(plugin) == ""
    strict = problems(plugin, "--strict")
    for problem in (
        "revision is unknown",
        "sha256 is unknown",
        "size is missing",
        "license",
        "pickle",
    ):
        assert problem in strict


def test_weights_in_the_package_are_hashed(plugin: Path) -> None:
    package = plugin / "src" / "refiners_edges"
    pin = f'[adapter.edges.weights.w]\nsource = "pkg:refiners_edges/w"\nsha256 = "{"0" * 64}"\n'
    (package / "adapter.toml").write_text(EDGES_TOML + pin)
    assert "does not exist" in problems(plugin)
    (package / "w").write_bytes(b"1")
    assert "has the sha256 6b86b273" in problems(plugin)


def test_first_party_plugins_are_valid() -> None:
    for folder in (Path(__file__).parents[3] / "plugins").iterdir():
        if (folder / "pyproject.toml").exists():
            assert problems(folder) == "", folder


@pytest.mark.parametrize("kind", ["adapter", "model"])
def test_the_schema_is_printed_for_editors(kind: str) -> None:
    schema = json.loads(run("validate", "--schema", kind).stdout)
    assert kind in json.dumps(schema)
    assert schema["$ref"].endswith(f"{kind.capitalize()}Manifest")
    result = run("validate")
    assert (result.exit_code, "Name what to check" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("look.py", b"x = 1\n", "look.py has no docstring"),
        ("look.py", b"def f(:\n", "look.py cannot be read"),
        ("look.png", b"GIF89a", "look.png is not a PNG"),
        ("look.png", b"\x89PNG\r\n\x1a\n" + bytes(200_000), "has 200008 bytes, and at most 200000"),
        ("look.py", b'"""Look."""\n', "examples/look.py would be left out of the wheel"),
    ],
)
def test_a_fault_of_an_example_is_noticed(plugin: Path, name: str, content: bytes, words: str):
    if "left out" not in words:
        project = (plugin / "pyproject.toml").read_text()
        changed = project.replace('["*.toml"]', '["*.toml", "examples/*"]')
        (plugin / "pyproject.toml").write_text(changed)
    folder = next(plugin.rglob("adapter.toml")).parent / "examples"
    folder.mkdir()
    (folder / "look.py").write_text('"""Look."""\n')
    (folder / name).write_bytes(content)
    result = run("validate", plugin, "--json")
    assert words in " ".join(each["what"] for each in json.loads(result.stdout)["findings"])
