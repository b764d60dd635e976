"""Authors get a complete template, and a check before publication."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from refiners.authoring.scaffold import create
from refiners.cli import main

from refiners_core.testing import LAWS, AdapterCase
from refiners_core.testing.contract import is_absent_when_left_out

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


def test_a_new_adapter_is_valid_and_passes_its_own_tests(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    result = run("new", "edge-guide", "--folder", folder)
    assert result.exit_code == 0, result.output
    assert "refiners_edge_guide/adapter.toml" in result.stdout
    assert run("validate", "--strict", folder).exit_code == 0
    assert not [p for p in folder.rglob("*") if p.is_file() and "$" in p.read_text()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(LAWS) + 2} passed" in done.stdout


def test_a_broken_law_of_a_new_adapter_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    create("edge-guide", folder)
    code = folder / "src" / "refiners_edge_guide" / "adapter.py"
    broken = code.read_text().replace(
        "When(self.scale_key, branch, Multiply(self.scale_key))", "branch"
    )
    sys.modules.pop("refiners_edge_guide", None)
    code.write_text(broken)
    namespace: dict[str, Any] = {}
    exec(broken, namespace)
    with pytest.raises(AssertionError, match="still changes the output"):
        is_absent_when_left_out(AdapterCase(lambda: namespace["EdgeGuide"](name="edge-guide")))


@pytest.mark.parametrize("name", ["sum", "chain", "none", "true", "adapter", "seat", "edge-3d"])
def test_the_class_of_a_new_adapter_has_a_unique_name(tmp_path: Path, name: str) -> None:
    create(name, tmp_path / "x")
    (code,) = (tmp_path / "x").rglob("adapter.py")
    tree = ast.parse(code.read_text())
    imported = {
        alias.name
        for statement in tree.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    (kind,) = (item.name for item in tree.body if isinstance(item, ast.ClassDef))
    assert kind not in imported
    assert run("validate", "--strict", tmp_path / "x").exit_code == 0


def test_the_name_of_a_package_of_refiners_is_refused(tmp_path: Path) -> None:
    result = run("new", "core", "--folder", tmp_path / "x")
    assert (result.exit_code, "such as my-core" in result.stderr) == (2, True)


@pytest.mark.parametrize("name", ["Edge", "edge_guide", "1edge", "class", "../edge", ""])
def test_a_bad_name_writes_nothing(tmp_path: Path, name: str) -> None:
    assert run("new", name, "--folder", tmp_path / "x").exit_code == 2
    assert not (tmp_path / "x").exists()


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    result = run("new", "edge", "--folder", tmp_path)
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []


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
