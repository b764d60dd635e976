"""Distributions are found where importlib finds them, without the time that importing it takes."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from refiners.installed.distribution import canonical, distributions, entry_points_in, owner_of
from refiners.installed.inventory import scan

from ..conftest import EDGES_TOML, Site


def owners(found: Iterator[object]) -> set[tuple[str, str]]:
    return {(owner.name, owner.version) for one in found if (owner := owner_of(one))}


def test_what_importlib_finds_is_found() -> None:
    known = {(canonical(one.name), one.version) for one in metadata.distributions()}
    assert owners(distributions()) == known


def test_an_archive_on_the_path_is_looked_into(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zipped.egg", "w") as archive:
        archive.writestr("EGG-INFO/PKG-INFO", "Name: zipped\nVersion: 2\n")
        archive.writestr("EGG-INFO/entry_points.txt", "[refiners.adapters]\na = z:adapter.toml\n")
    (found,) = distributions([str(tmp_path / "zipped.egg")])
    assert owner_of(found) == ("zipped", "2")
    assert "refiners.adapters" in found.read_text("entry_points.txt")


def test_what_is_no_folder_has_nothing(tmp_path: Path) -> None:
    (tmp_path / "refiners_x-1.dist-info").write_text("a file")
    (found,) = distributions([str(tmp_path), str(tmp_path / "gone")])
    assert found.read_text("METADATA") is None
    assert owner_of(found) is None


def test_finders_of_others_are_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = tmp_path / "odd-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: Odd\nVersion: 1\n")

    class Finder:
        @staticmethod
        def find_distributions(context: object) -> list[metadata.PathDistribution]:
            return [metadata.PathDistribution(info)]

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert ("odd", "1") in owners(distributions())


def test_listing_imports_no_importlib_metadata() -> None:
    code = "import sys, refiners; refiners.adapters(); print('importlib.metadata' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


def test_entry_points_are_read_line_by_line() -> None:
    text = "# a comment\n[ group ]\n\na = b:c = d\n;x\n[other]\ne=f\n"
    assert [*entry_points_in(text)] == [("group", "a", "b:c = d"), ("other", "e", "f")]
    for bad in ("a = b", "[group]\na", "[group\na = b"):
        with pytest.raises(ValueError, match="is no entry point"):
            [*entry_points_in(bad)]


def test_garbled_entry_points_are_a_reason(site: Site) -> None:
    site.add("refiners-bad", files={"adapter.toml": EDGES_TOML})
    points = site.folder / "refiners_bad-1.2.dist-info" / "entry_points.txt"
    points.write_bytes(b"[refiners.adapters]\nmain = refiners_bad\xff:adapter.toml\n")
    site.add_edges()
    found = scan()
    assert [one.name for one in found.adapters] == ["edges"]
    assert "should be 'package:adapter.toml'" in found.broken[0].error
