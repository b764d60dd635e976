"""The doctor names plugins whose requirements conflict: both requirements, and what to type."""

from pathlib import Path

import pytest
from refiners.doctor import Problem, examine
from refiners.installed.dependency import unmet_requirements

from ..conftest import EDGES, EDGES_TOML, Site


@pytest.fixture
def place(site: Site) -> Site:
    site.add_toy()
    return site


def plugin(site: Site, name: str, *requires: str) -> None:
    package = f"refiners_{name}"
    text = EDGES_TOML.replace("adapter.edges", f"adapter.{name}").replace("refiners_edges", package)
    site.add(f"refiners-{name}", files={"adapter.py": EDGES, "adapter.toml": text})
    require(site.folder / f"{package}-1.2.dist-info", *requires)


def library(site: Site, name: str, version: str, *requires: str) -> None:
    site.add(name, entry_points="", version=version)
    require(site.folder / f"{name}-{version}.dist-info", *requires)


def require(info: Path, *requires: str) -> None:
    with (info / "METADATA").open("a") as file:
        file.writelines(f"Requires-Dist: {line}\n" for line in requires)


def problems() -> list[Problem]:
    return [p for p in examine(is_probing=False) if p.kind in ("conflict", "requirement")]


def test_the_pair_of_requirements_that_conflict_is_named(place: Site) -> None:
    library(place, "tinylib", "1.9")
    plugin(place, "a", "tinylib<2")
    plugin(place, "b", "tinylib>=2", "refiners-core")
    (problem,) = problems()
    assert problem.what == (
        "refiners-b 1.2 requires tinylib>=2, and refiners-a 1.2 requires tinylib<2: "
        "no tinylib meets both; 1.9 is installed"
    )
    assert (problem.kind, problem.command) == ("conflict", "pip install -U refiners-b refiners-a")


def test_a_conflict_through_other_packages_is_traced(place: Site) -> None:
    library(place, "tinylib", "2.0")
    library(place, "middle", "3.0", "tinylib~=1.4", "absent; extra == 'more'")
    plugin(place, "a", "middle")
    plugin(place, "b", "tinylib>=2")
    (problem,) = problems()
    assert "middle 3.0, which refiners-a needs, requires tinylib~=1.4" in problem.what
    assert "refiners-b 1.2 requires tinylib>=2" in problem.what


@pytest.mark.parametrize(
    ("installed", "requires", "what", "command"),
    [
        ("1.0", "tinylib>=1.5", "1.0 is installed", "pip install 'tinylib<3,>=1.5'"),
        ("", "tinylib>=1.5", "tinylib is not installed", "pip install 'tinylib<3,>=1.5'"),
        ("2.0", "tinylib>=1.5", "", ""),
        ("2.0.dev1", "tinylib>=1.5", "", ""),
        ("2.0", "tinylib>=7; python_version < '3'", "", ""),
        ("2.0", "not a requirement !", "", ""),
    ],
)
def test_what_is_missing_or_old_has_one_command(
    place: Site, installed: str, requires: str, what: str, command: str
) -> None:
    if installed:
        library(place, "tinylib", installed)
    plugin(place, "a", requires)
    plugin(place, "b", "tinylib<3")
    assert [(what in p.what, p.command) for p in problems()] == ([(True, command)] if what else [])


@pytest.mark.parametrize(
    ("first", "second", "is_conflict"),
    [
        ("<2", ">=2", True),
        ("<2", ">=1.9.9", False),
        ("==1.*", ">=2", True),
        ("!=1.5", "==1.5", True),
        (">1.5", "<1.6", False),
        ("~=1.4.2", "<1.4.2", True),
        ("==1.0+cpu", "==1.0", False),
        ("<1.0.dev1", ">=1.0", True),
    ],
)
def test_two_ranges_conflict_if_no_version_is_in_both(
    place: Site, first: str, second: str, is_conflict: bool
) -> None:
    plugin(place, "a", f"tinylib{first}")
    plugin(place, "b", f"tinylib{second}")
    (unmet,) = unmet_requirements()
    assert (unmet.rival is not None) == is_conflict
