"""Distributions: the same as importlib finds, without the cost of importing it."""

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


def owners(dists: Iterator[object]) -> set[tuple[str, str]]:
    return {(owner.name, owner.version) for dist in dists if (owner := owner_of(dist))}


def test_the_same_distributions_as_in_importlib_are_found() -> None:
    known = {(canonical(dist.name), dist.version) for dist in metadata.distributions()}
    assert owners(distributions()) == known


def test_an_archive_on_the_path_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zipped.egg", "w") as archive:
        archive.writestr("EGG-INFO/PKG-INFO", "Name: zipped\nVersion: 2\n")
        archive.writestr("EGG-INFO/entry_points.txt", "[refiners.adapters]\na = z:adapter.toml\n")
    (dist,) = distributions([str(tmp_path / "zipped.egg")])
    assert owner_of(dist) == ("zipped", "2")
    assert "refiners.adapters" in dist.read_text("entry_points.txt")


def test_a_file_in_place_of_a_metadata_folder_has_no_texts(tmp_path: Path) -> None:
    (tmp_path / "refiners_x-1.dist-info").write_text("a file")
    (dist,) = distributions([str(tmp_path), str(tmp_path / "gone")])
    assert dist.read_text("METADATA") is None
    assert owner_of(dist) is None


def test_foreign_finders_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "False"


def test_entry_points_are_read_line_by_line() -> None:
    text = "# a comment\n[ group ]\n\na = b:c = d\n;x\n[other]\ne=f\n"
    assert [*entry_points_in(text)] == [("group", "a", "b:c = d"), ("other", "e", "f")]
    for bad in ("a = b", "[group]\na", "[group\na = b"):
        with pytest.raises(ValueError, match="is not an entry point"):
            [*entry_points_in(bad)]


def test_garbled_entry_points_have_a_reason(site: Site) -> None:
    site.add("refiners-bad", files={"adapter.toml": EDGES_TOML})
    points = site.folder / "refiners_bad-1.2.dist-info" / "entry_points.txt"
    points.write_bytes(b"[refiners.adapters]\nmain = refiners_bad\xff:adapter.toml\n")
    site.add_edges()
    inventory = scan()
    assert [adapter.name for adapter in inventory.adapters] == ["edges"]
    assert "should be 'package:adapter.toml'" in inventory.broken[0].error
