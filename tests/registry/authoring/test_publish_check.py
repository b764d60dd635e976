"""`refiners publish-check`: a good plugin passes, and each fault has a line with what to type."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from refiners.catalog import Release
from refiners.catalog.build import add
from refiners.catalog.publisher import Publisher
from refiners.cli import main
from refiners.testing import LoopbackHub, safetensors_of

from ..conftest import EDGES, EDGES_TOML, Site

DATA = safetensors_of({"a": [1.0]})
CARD = b"""---
base_model: org/toy
base_model_relation: adapter
library_name: refiners-core
license: mit
tags: [refiners-core]
---
"""
README = (
    "# Edges\n\npip install refiners-edges\n\n![edges](https://example.org/a.png)\n"
    + "Words. " * 50
)
PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "refiners-edges"
version = "1.0"
license = "MIT"
readme = "README.md"
keywords = ["refiners"]
classifiers = ["Topic :: Scientific/Engineering :: Artificial Intelligence"]
dependencies = ["refiners-core>=1.0.0.dev0,<2"]

[project.urls]
Repository = "https://github.com/me/edges"

[project.entry-points."refiners.adapters"]
edges = "refiners_edges:adapter.toml"

[tool.setuptools.package-data]
refiners_edges = ["adapter.toml", "conformance.json", "examples/*"]
"""
REPORT = {
    "schema": 1, "name": "edges", "dist": "refiners-edges", "version": "1.0", "core": "1.0.0",
    "date": "2026-11-26", "checks": [{"check": "eject", "verdict": "pass", "reason": None}],
}  # fmt: skip
PACKAGE = "src/refiners_edges"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["publish-check", *map(str, arguments)])


def verdicts(result: Result) -> dict[str, list[str]]:
    outcomes: dict[str, list[str]] = {}
    for check in json.loads(result.stdout)["checks"]:
        outcomes.setdefault(check["check"], []).append(check["verdict"])
    return outcomes


@pytest.fixture
def plugin(tmp_path: Path, site: Site, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin that is ready to be published."""
    monkeypatch.setenv("REFINERS_CATALOG", str(tmp_path / "catalog"))
    add(tmp_path / "catalog", [])
    site.add_toy()
    repo = hub.publish("me/edges", {"e.safetensors": DATA, "README.md": CARD})
    text = EDGES_TOML.replace(
        'summary = "Follow edges"', 'summary = "Follow edges"\nlicense = "MIT"'
    )
    text = text.replace("targets =", 'weights = "w"\ntargets =')
    text += (
        f'[adapter.edges.weights.w]\nsource = "hf:me/edges"\nfile = "e.safetensors"\n'
        f'revision = "{repo.commit}"\nsha256 = "{hashlib.sha256(DATA).hexdigest()}"\n'
        f'size = {len(DATA)}\nlicense = "MIT"\n'
    )
    folder = tmp_path / "edges"
    write(folder, "pyproject.toml", PROJECT)
    write(folder, "README.md", README)
    write(folder, "LICENSE", "MIT")
    write(folder, f"{PACKAGE}/__init__.py", "")
    write(folder, f"{PACKAGE}/adapter.py", EDGES)
    write(folder, f"{PACKAGE}/adapter.toml", text)
    write(folder, f"{PACKAGE}/conformance.json", json.dumps(REPORT))
    write(folder, f"{PACKAGE}/examples/house.py", '"""Draws a house."""\n')
    (folder / PACKAGE / "examples/house.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    build(folder)
    return folder


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def build(folder: Path, **more: bytes) -> Path:
    """Writes the wheel that setuptools would, with more files in it."""
    (folder / "dist").mkdir(exist_ok=True)
    path = folder / "dist/refiners_edges-1.0-py3-none-any.whl"
    info = "refiners_edges-1.0.dist-info"
    metadata = (
        "Metadata-Version: 2.4\nName: refiners-edges\nVersion: 1.0\nLicense-Expression: MIT\n"
        "License-File: LICENSE\n"
        "Keywords: refiners\nClassifier: Topic :: Scientific/Engineering\n"
        "Project-URL: Repository, https://github.com/me/edges\n"
        f"Requires-Dist: refiners-core<2,>=1.0.0.dev0\n\n{README}"
    )
    with zipfile.ZipFile(path, "w") as wheel:
        for file in sorted((folder / "src").rglob("*.*")):
            wheel.writestr(file.relative_to(folder / "src").as_posix(), file.read_bytes())
        wheel.writestr(f"{info}/METADATA", metadata)
        point = "[refiners.adapters]\nedges = refiners_edges:adapter.toml\n"
        wheel.writestr(f"{info}/entry_points.txt", point)
        for name, content in more.items():
            wheel.writestr(name, content)
    return path


def test_a_good_plugin_passes_as_folder_and_as_wheel(plugin: Path) -> None:
    for path in (plugin, plugin / "dist/refiners_edges-1.0-py3-none-any.whl"):
        result = run(path, "--json")
        assert result.exit_code == 0, result.stdout
        assert json.loads(result.stdout)["warnings"] == 0, result.stdout
        assert len(verdicts(result)) == 12
    assert "0 problems, 0 warnings" in run(plugin).stdout


def changed(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))
        build(folder)

    return change


def removed(name: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        (folder / name).unlink()
        build(folder)

    return remove


def packed(name: str, content: bytes) -> Callable[[Path], None]:
    def pack(folder: Path) -> None:
        build(folder, **{name: content})

    return pack


def grown(name: str) -> Callable[[Path], None]:
    def grow(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes() + bytes(300_000))
        build(folder)

    return grow


def unbuilt(folder: Path) -> None:
    (folder / "dist/refiners_edges-1.0-py3-none-any.whl").unlink()


MANIFEST, REPORT_FILE = f"{PACKAGE}/adapter.toml", f"{PACKAGE}/conformance.json"
FAULTS: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    "prefix": (
        changed("pyproject.toml", "refiners-edges", "edges"),
        "name",
        "warning",
        "refiners-edges",
    ),
    "version": (
        changed("pyproject.toml", '"1.0"', '"one"'),
        "version",
        "problem",
        "[project] version",
    ),
    "local": (
        changed("pyproject.toml", '"1.0"', '"1.0+me"'),
        "version",
        "problem",
        "[project] version",
    ),
    "summary": (changed(MANIFEST, "summary", "sumary"), "manifest", "problem", "validate --strict"),
    "slot": (changed(MANIFEST, "adapter:Edges", "adapter:Edge"), "manifest", "problem", "validate"),
    "no size": (changed(MANIFEST, "size = ", "x-size = "), "manifest", "problem", "validate"),
    "commit": (
        changed(MANIFEST, 'revision = "', f'revision = "{"0" * 40}"\nx-was = "'),
        "pins",
        "warning",
        "refiners pin",
    ),
    "code": (changed("pyproject.toml", 'license = "MIT"', ""), "license", "problem", "license ="),
    "weights": (changed(MANIFEST, '\nlicense = "MIT"\n', "\n"), "license", "problem", "license ="),
    "terms": (changed(MANIFEST, '"MIT"\n', '"cc-by-nc-4.0"\n'), "license", "warning", "README"),
    "no readme": (removed("README.md"), "readme", "problem", "readme ="),
    "picture": (changed("README.md", "![", "["), "readme", "warning", "!["),
    "install": (
        changed("README.md", "pip install", ""),
        "readme",
        "warning",
        "pip install refiners-edges",
    ),
    "pickle": (packed("refiners_edges/w.pkl", b"1"), "wheel", "problem", "leave it out"),
    "large": (
        packed("refiners_edges/notes.dat", bytes(16_000_000)),
        "wheel",
        "problem",
        "publish weights on the Hub",
    ),
    "undeclared": (
        packed("refiners_edges/w.safetensors", b"1"),
        "wheel",
        "problem",
        'source = "pkg:refiners_edges/w.safetensors"',
    ),
    "compiled": (packed("refiners_edges/a.pyc", b""), "wheel", "warning", "__pycache__"),
    "strays": (packed("tests/test_a.py", b""), "wheel", "warning", 'where = ["src"]'),
    "no wheel": (unbuilt, "wheel", "not-run", "pip wheel"),
    "old core": (
        changed("pyproject.toml", ">=1.0.0.dev0,<2", "<1.0.0.dev0"),
        "core",
        "problem",
        "refiners-core>=",
    ),
    "open core": (changed("pyproject.toml", ",<2", ""), "core", "warning", "<2"),
    "no core": (
        changed("pyproject.toml", "refiners-core", "numpy"),
        "core",
        "problem",
        "refiners-core>=",
    ),
    "keywords": (
        changed("pyproject.toml", '"refiners"]', '"x"]'),
        "discovery",
        "warning",
        "keywords",
    ),
    "no report": (removed(REPORT_FILE), "conformance", "warning", "pytest --conformance"),
    "old report": (
        changed(REPORT_FILE, '"version": "1.0"', '"version": "0.9"'),
        "conformance",
        "problem",
        "pytest",
    ),
    "foreign report": (
        changed(REPORT_FILE, '"name": "edges"', '"name": "lines"'),
        "conformance",
        "problem",
        "pytest --conformance",
    ),
    "failing": (changed(REPORT_FILE, '"pass"', '"fail"'), "conformance", "warning", "pytest"),
    "damaged report": (changed(REPORT_FILE, '"schema"', '"x"'), "conformance", "problem", "pytest"),
    "no examples": (removed(f"{PACKAGE}/examples/house.py"), "examples", "warning", "NAME.png"),
    "no picture": (removed(f"{PACKAGE}/examples/house.png"), "examples", "warning", "house.png"),
    "heavy": (grown(f"{PACKAGE}/examples/house.png"), "manifest", "problem", "validate"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_a_line_with_what_to_type(plugin: Path, fault: str) -> None:
    change, name, verdict, fix = FAULTS[fault]
    change(plugin)
    result = run(plugin, "--json")
    checks = json.loads(result.stdout)["checks"]
    lines = [check for check in checks if check["check"] == name and check["verdict"] == verdict]
    assert lines, result.stdout
    assert any(fix in line["fix"] for line in lines), lines
    assert result.exit_code == any(check["verdict"] == "problem" for check in checks)


def release(dist: str, version: str, who: str = "") -> Release:
    publisher = Publisher(kind="GitHub", repository=who, workflow="r.yml") if who else None
    spec = {"summary": "x", "variant": [{"base": "toy"}]}
    return Release(name="edges", kind="adapter", distribution=dist, version=version, spec=spec,
                   publisher=publisher)  # fmt: skip


@pytest.mark.parametrize(
    ("published", "name", "version", "what"),
    [
        (release("refiners-other", "1.0"), "problem", "pass", "refiners-other published it first"),
        (release("refiners-edges", "1.0.0"), "pass", "problem", "1.0 is published already"),
        (release("refiners-edges", "1.1"), "pass", "warning", "1.1 is newer"),
        (release("refiners-edges", "0.9", "Me/edges"), "pass", "pass", "yours: github:me/edges"),
        (
            release("refiners-edges", "0.9", "you/edges"),
            "problem",
            "pass",
            "published by github:you",
        ),
    ],
)
def test_names_and_versions_are_compared_with_the_catalog(
    plugin: Path, tmp_path: Path, published: Release, name: str, version: str, what: str
) -> None:
    add(tmp_path / "catalog", [published])
    result = run(plugin, "--json")
    assert what in result.stdout
    assert verdicts(result)["name"] == [name]
    assert verdicts(result)["version"] == [version]


def test_a_card_without_its_fields_is_a_warning(plugin: Path, hub: LoopbackHub) -> None:
    hub.publish(
        "me/edges", {"e.safetensors": DATA, "README.md": CARD.replace(b"base_model:", b"x:")}
    )
    result = run(plugin, "--json")
    assert "lacks base_model" in result.stdout
    assert verdicts(result)["card"] == ["warning"]
    hub.publish("me/edges", {"e.safetensors": DATA})
    assert "has no model card" in run(plugin).stdout


def test_without_the_hub_its_checks_do_not_run(plugin: Path, hub: LoopbackHub) -> None:
    result = run(plugin, "--offline", "--json")
    assert result.exit_code == 0
    assert (verdicts(result)["pins"], verdicts(result)["card"]) == (["not-run"], ["not-run"])
    assert "without --offline" in result.stdout
    assert "offline=False" not in result.stdout
    assert hub.requests == []


@pytest.mark.parametrize("name", ["a.whl", "a.txt", "empty"])
def test_what_is_not_a_plugin_is_refused(tmp_path: Path, name: str, hub: LoopbackHub) -> None:
    path = tmp_path / name
    path.mkdir() if name == "empty" else path.write_text("text")
    assert run(path).exit_code == 2


@pytest.mark.parametrize(
    ("installed", "suggested"),
    [("1.0.0.dev0", ">=1.0.0.dev0,<2"), ("1.5.dev1", ">=1.0,<2"), ("2.1+me", ">=2.1,<3")],
)
def test_the_suggested_range_contains_the_installed_core(
    plugin: Path, monkeypatch: pytest.MonkeyPatch, installed: str, suggested: str
) -> None:
    versions = {"refiners-core": installed}
    monkeypatch.setattr("refiners.installed.dependency.version_of_package", versions.get)
    changed("pyproject.toml", ">=1.0.0.dev0,<2", "<0.5")(plugin)
    checks = json.loads(run(plugin, "--json").stdout)["checks"]
    assert [c["fix"] for c in checks if c["check"] == "core"] == [f'"refiners-core{suggested}"']


def test_a_damaged_wheel_is_one_problem_of_the_table(plugin: Path) -> None:
    wheel = plugin / "dist/refiners_edges-1.0-py3-none-any.whl"
    for content in (b"text", wheel.read_bytes().replace(b"Draws", b"Drawn")):
        wheel.write_bytes(content)
        result = run(plugin, "--json")
        found = verdicts(result)
        assert (len(found), found["wheel"], found["pins"]) == (12, ["problem"], ["pass"])
        assert "build it again: pip wheel" in result.stdout


def test_a_wheel_without_metadata_is_refused_in_words(plugin: Path) -> None:
    wheel = plugin / "dist/refiners_edges-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("refiners_edges/adapter.toml", "")
    assert "it has no files *.dist-info/METADATA" in run(wheel).stderr


def test_a_problem_of_a_wheel_names_no_temporary_path(plugin: Path) -> None:
    changed(MANIFEST, "summary", "sumary")(plugin)
    result = run(plugin / "dist/refiners_edges-1.0-py3-none-any.whl", "--json")
    assert "refiners_edges/adapter.toml" in result.stdout
    assert "refiners-wheel-" not in result.stdout


def test_the_picture_to_replace_is_named(plugin: Path) -> None:
    (plugin / PACKAGE / "examples/house.png").write_bytes(b"GIF89a")
    assert "Replace house.png" in run(build(plugin), "--json").stdout


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[tool.setuptools.package-data]", "[tool]\nsetuptools = 3\n[x]", "should be a table"),
        ('"MIT"', '"MIT"\nlicense-files = ["/etc/*"]', "is not a relative pattern"),
        ('version = "1.0"', "version = 1.0", "[project] version should be a text"),
        ("[project.urls]\nRepository =", "[project.urls]\nRepository = 3\nx =", "should be a text"),
    ],
)
def test_a_wrong_type_in_the_project_is_a_problem(
    plugin: Path, old: str, new: str, words: str
) -> None:
    changed("pyproject.toml", old, new)(plugin)
    result = run(plugin, "--json")
    assert words in result.stdout
    assert (len(verdicts(result)), result.exit_code) == (12, 1)


def test_a_project_that_is_no_table_is_refused_in_words(plugin: Path) -> None:
    (plugin / "pyproject.toml").write_text("project = 3")
    result = run(plugin)
    assert (result.exit_code, "project should be a table" in result.stderr) == (2, True)
