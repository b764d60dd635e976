"""Discovery: installed plugins are found without running them, broken ones are reasons."""

import sys

import pytest
import refiners
from refiners import discover
from refiners.discover import package_file, scan
from refiners.distribution import canonical

from .conftest import EDGES_TOML, TOY_MODEL_TOML, Site

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
    assert [one.dist for one in scan().broken] == ["unknown"]


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
    copy = next(iter(discover.distributions()))
    monkeypatch.setattr(discover, "distributions", lambda: [copy, copy])
    assert [one.name for one in refiners.adapters()] == ["edges"]


def test_distributions_have_one_spelling() -> None:
    assert canonical("Refiners_Edges.x") == "refiners-edges-x"


def test_models_are_listed_apart(site: Site) -> None:
    site.add("refiners-toy", files={"model.toml": TOY_MODEL_TOML})
    assert refiners.adapters() == ()
    assert [one.spec.family for one in refiners.models()] == ["toy"]
