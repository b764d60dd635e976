"""Packages declare measures, which are listed without an import and fail alone."""

import sys

import pytest
import refiners
from refiners.errors import AmbiguousNameError, PluginError, UnknownNameError
from refiners.installed.measure import package_measures

from .conftest import Site

MEASURE = """
from refiners_core.measure import Figure, Measure, Samples


class Toy(Measure):
    base = "toy"
    figures = (Figure("hits"),)

    def run(self, model, adapter, count, settings):
        return Samples({"hits": [1.0] * count})


class Baseless(Toy):
    base = ""


class Twice(Toy):
    figures = (Figure("hits"), Figure("hits"))


def nothing():
    return None


def failing():
    raise ValueError("no scenes")
"""
POINTS = "[refiners.measures]\n{} = {}\n"


def declare(site: Site, name: str, reference: str, dist: str = "refiners-gauge") -> None:
    files = {"measure.py": MEASURE}
    site.add(dist, files=files, entry_points=POINTS.format(name, reference))


def test_a_measure_is_listed_without_importing_it_and_imported_by_name(site: Site) -> None:
    declare(site, "toy-edges", "refiners_gauge.measure:Toy")
    (measure,) = refiners.measures()
    assert (measure.name, measure.dist) == ("toy-edges", "refiners-gauge")
    assert "refiners_gauge" not in sys.modules
    for name in ("toy-edges", "refiners-gauge:toy-edges", "Refiners_Gauge:toy-edges"):
        assert refiners.load_measure(name).figures[0].name == "hits"


def test_an_unknown_name_is_answered_with_the_nearest(site: Site) -> None:
    declare(site, "toy-edges", "refiners_gauge.measure:Toy")
    with pytest.raises(UnknownNameError, match="Did you mean 'toy-edges'"):
        refiners.load_measure("toy-edge")
    with pytest.raises(UnknownNameError, match="Measures: toy-edges"):
        refiners.load_measure("unlike")


def test_a_name_of_two_packages_is_ambiguous(site: Site) -> None:
    declare(site, "toy", "refiners_gauge.measure:Toy")
    declare(site, "toy", "refiners_meter.measure:Toy", "refiners-meter")
    with pytest.raises(AmbiguousNameError, match="refiners-gauge:toy or refiners-meter:toy"):
        refiners.load_measure("toy")
    assert refiners.load_measure("refiners-meter:toy").base == "toy"


@pytest.mark.parametrize(
    ("attribute", "fault"),
    [
        ("Baseless", "has no base"),
        ("Twice", "two figures of one name"),
        ("nothing", "returned a NoneType"),
        ("failing", "ValueError: no scenes"),
        ("Absent", "importing refiners_gauge.measure:Absent failed"),
    ],
)
def test_what_is_not_a_measure_names_its_package(site: Site, attribute: str, fault: str) -> None:
    declare(site, "toy", f"refiners_gauge.measure:{attribute}")
    with pytest.raises(PluginError, match=fault) as caught:
        refiners.load_measure("toy")
    assert caught.value.dist == "refiners-gauge"


def test_a_malformed_entry_point_takes_no_other_measure_down(site: Site) -> None:
    declare(site, "toy", "refiners_gauge.measure:Toy")
    declare(site, "Bad name", "refiners_bad.measure:Toy", "refiners-bad")
    declare(site, "bad", "refiners_worse.measure", "refiners-worse")
    declared = package_measures()
    assert [measure.name for measure in declared.measures] == ["toy"]
    assert [fault.dist for fault in declared.broken] == ["refiners-bad", "refiners-worse"]
