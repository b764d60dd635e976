"""Discovery: installed plugins are found without running them; broken ones have a reason."""

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


def test_installed_plugins_are_listed(site: Site) -> None:
    site.add_toy()
    site.add_edges()
    (adapter,), (model,) = refiners.adapters(), refiners.models()
    assert (adapter.id, adapter.version) == ("refiners-edges:edges", "1.2")
    assert model.id == "refiners-toy:toy"
    assert refiners.broken() == ()


def test_listing_imports_no_plugin(site: Site) -> None:
    files = {"__init__.py": RAISES, "adapter.toml": EDGES_TOML}
    site.add("refiners-edges", files=files)
    assert [adapter.name for adapter in refiners.adapters()] == ["edges"]
    assert "refiners_edges" not in sys.modules


def test_an_editable_installation_is_found(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    package = site.add("refiners-edges", files={"adapter.toml": EDGES_TOML})
    src = site.folder.parent / "checkout" / "src"
    src.mkdir(parents=True)
    package.rename(src / package.name)
    assert "its package is gone" in str(refiners.broken())
    monkeypatch.syspath_prepend(str(src))  # as the .pth file of an editable installation does
    (adapter,) = refiners.adapters()
    assert adapter.path == src / "refiners_edges" / "adapter.toml"


@pytest.mark.parametrize(
    ("files", "entry_points", "message"),
    [
        ({"adapter.toml": "schema = 1"}, None, "'adapter' is missing"),
        ({"adapter.toml": "schema ="}, None, "is not TOML"),
        ({}, None, "has no adapter.toml"),
        ({}, "[refiners.adapters]\nx = nowhere_at_all:adapter.toml\n", "its package is gone"),
        ({}, "[refiners.adapters]\nx = refiners_bad.module:Class\n", "should be 'package:adapter"),
        ({}, "[refiners.adapters]\nx = ../../etc:adapter.toml\n", "should be 'package:adapter"),
        ({}, "[refiners.adapters]\nthis is not an entry point\n", "entry_points.txt"),
        ({"model.toml": EDGES_TOML}, "[refiners.models]\nx = refiners_bad:model.toml\n", "no such"),
    ],
)
def test_a_broken_package_has_a_reason_and_affects_no_other(
    site: Site, files: dict[str, str | bytes], entry_points: str | None, message: str
) -> None:
    site.add("refiners-bad", files=files, entry_points=entry_points)
    site.add_edges()
    inventory = scan()
    assert [adapter.name for adapter in inventory.adapters] == ["edges"]
    (broken,) = inventory.broken
    assert broken.dist == "refiners-bad"
    assert message in f"{broken.name} {broken.error}"


def test_metadata_without_a_name_has_a_reason(site: Site) -> None:
    site.add("refiners-bad", files={"adapter.toml": EDGES_TOML})
    (site.folder / "refiners_bad-1.2.dist-info" / "METADATA").unlink()
    (broken,) = scan().broken
    assert broken.dist == "unknown"
    assert "refiners_bad-1.2.dist-info" in broken.error


def test_an_unreadable_manifest_has_a_reason(site: Site) -> None:
    package = site.add("refiners-bad", files={"adapter.toml": EDGES_TOML})
    (package / "adapter.toml").write_bytes(b"\xff\xfe")
    assert "cannot be read" in scan().broken[0].error


def test_one_distribution_provides_several_adapters(site: Site) -> None:
    second = EDGES_TOML.replace("schema = 1", "").replace("edges", "depth")
    site.add("refiners-edges", files={"adapter.toml": EDGES_TOML + second})
    assert [adapter.id for adapter in refiners.adapters()] == [
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
    assert [adapter.name for adapter in refiners.adapters()] == ["edges"]


def test_distributions_have_a_canonical_spelling() -> None:
    assert canonical("Refiners_Edges.x") == "refiners-edges-x"


def test_models_are_listed_separately(site: Site) -> None:
    site.add("refiners-toy", files={"model.toml": TOY_MODEL_TOML})
    assert refiners.adapters() == ()
    assert [model.spec.family for model in refiners.models()] == ["toy"]


def test_a_distribution_that_names_its_manifest_twice_has_it_once(site: Site) -> None:
    points = (
        "[refiners.adapters]\na = refiners_edges:adapter.toml\nb = refiners_edges:adapter.toml\n"
    )
    site.add("refiners-edges", files={"adapter.toml": EDGES_TOML}, entry_points=points)
    assert [adapter.id for adapter in refiners.adapters()] == ["refiners-edges:edges"]
    assert scan().broken == ()


def test_a_second_manifest_for_a_name_has_a_reason(site: Site) -> None:
    points = "[refiners.adapters]\na = refiners_edges:adapter.toml\nb = refiners_edges:more.toml\n"
    files: dict[str, str | bytes] = {"adapter.toml": EDGES_TOML, "more.toml": EDGES_TOML}
    site.add("refiners-edges", files=files, entry_points=points)
    assert [adapter.path.name for adapter in refiners.adapters()] == ["adapter.toml"]
    assert "more.toml has edges, which adapter.toml has as well" in scan().broken[0].error


@pytest.mark.parametrize("points", ["", "[console_scripts]\nx = y:z\n"])
def test_a_newer_copy_hides_an_older_one_whatever_it_provides(
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


def test_the_reason_names_the_archive_of_a_plugin(
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
    assert f"refiners_zipped is in an archive, {archive}" in broken.error


@pytest.mark.parametrize("value", ["refiners_edges:my-adapter.toml", "refiners_é:adapter.toml"])
def test_an_entry_point_that_importlib_cannot_read_is_refused(site: Site, value: str) -> None:
    points = f"[refiners.adapters]\na = {value}\n"
    files: dict[str, str | bytes] = {"my-adapter.toml": EDGES_TOML}
    site.add("refiners-edges", files=files, entry_points=points)
    assert "should be 'package:adapter.toml'" in scan().broken[0].error


@pytest.mark.parametrize("error", ["RuntimeError", "SystemExit", "GeneratorExit", "BaseException"])
def test_a_finder_that_raises_affects_no_other_package(
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
    everything = scan()
    assert "edges" in [adapter.name for adapter in everything.adapters]
    assert [(broken.dist, broken.error) for broken in everything.broken] == [
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
def test_a_name_that_pip_refuses_appears_in_no_command(site: Site, name: str) -> None:
    site.add("refiners-edges", files={"adapter.toml": EDGES_TOML})
    metadata = site.folder / "refiners_edges-1.2.dist-info" / "METADATA"
    metadata.write_text(f"Name: {name}\nVersion: 1.0\n\nName: refiners-edges\n")
    (problem,) = examine(is_probing=False)
    assert (problem.dist, problem.command) == ("unknown", "pip check")
    assert "refiners_edges-1.2.dist-info" in problem.what


def test_special_files_in_place_of_metadata_are_skipped(site: Site) -> None:
    site.add_edges()
    for name in ("pipe", "folder"):
        info = site.folder / f"{name}-1.dist-info"
        info.mkdir()
        path = info / "entry_points.txt"
        path.mkdir() if name == "folder" else os.mkfifo(path)
    assert [adapter.name for adapter in refiners.adapters()] == ["edges"]


def test_garbled_entry_points_of_other_groups_are_ignored(site: Site) -> None:
    points = "[console_scripts]\nfoo\n[refiners.adapters]\nmain = refiners_edges:adapter.toml\n"
    site.add("refiners-edges", files={"adapter.toml": EDGES_TOML}, entry_points=points)
    assert [adapter.name for adapter in refiners.adapters()] == ["edges"]
