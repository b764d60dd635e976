"""Recognition is a pure function: conditions, facts and bases of layouts, without any file."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from refiners.hub.tensor_header import Header, TensorPlace
from refiners.manifest.file_layout import FileTable, UserFile
from refiners.manifest.reader import parse
from refiners.manifest.schema import AdapterManifest
from refiners.recognition.key_names import KeyNames
from refiners.recognition.number import numbers_in
from refiners.recognition.recogniser import Base, Evidence, Reader, misfit, recognise

from ..conftest import EDGES_TOML

BASES = (
    Base("small", {"width": 2}, {"ss_base": ["small_*"]}),
    Base("large", {"width": 4}, {"ss_base": ["large_*"]}),
)


def reader(*layouts: Mapping[str, Any], **table: Any) -> Reader:
    named = [{"name": f"layout {number}", **layout} for number, layout in enumerate(layouts)]
    return Reader(
        msgspec.convert({"layout": named, **table}, FileTable), "adapter", "edges", "dist"
    )


def fits(evidence: Evidence, *readers: Reader) -> list[str]:
    return [str(fit) for fit in recognise(evidence, readers, BASES)]


KEYS = ("a.0.up", "a.1.up", "b", "lora_x.alpha")


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("b", ["b"]),
        ("a.*.up", ["a.0.up", "a.1.up"]),
        ("*up", ["a.0.up", "a.1.up"]),
        ("*.alpha", ["lora_x.alpha"]),
        ("*", [*KEYS]),
        ("a", []),
        ("*.up*", ["a.0.up", "a.1.up"]),
        ("a.0*up*p", []),
        ("lora_*.*a", ["lora_x.alpha"]),
        (".*", []),
        ("[ab]", []),
    ],
)
def test_only_stars_are_special_in_patterns(pattern: str, matching: list[str]):
    names = KeyNames([*KEYS, "line\nbreak"])
    assert names.matching(pattern) == matching
    assert names.has(pattern) == bool(matching)


def test_a_file_without_tensors_has_no_name():
    assert not KeyNames([]).has("*")
    assert KeyNames([]).matching("*") == []


def test_patterns_take_linear_time():
    names = KeyNames(["a" * 20_000] * 5)
    assert not names.has("a*a*a*a*a*a*b")
    assert not names.has("*a*a*a*a*a*ba")


CONDITIONS: Mapping[str, tuple[Mapping[str, Any], bool]] = {
    "all keys": ({"keys": ["up", "down"]}, True),
    "a missing key": ({"keys": ["up", "none"]}, False),
    "any": ({"any": ["none", "up"]}, True),
    "none of any": ({"any": ["none"]}, False),
    "without": ({"keys": ["up"], "without": ["none"]}, True),
    "not without": ({"keys": ["up"], "without": ["down"]}, False),
    "a shape": ({"shapes": {"up": [2, 3]}}, True),
    "another size": ({"shapes": {"up": [2, 4]}}, False),
    "other dimensions": ({"shapes": {"up": [2]}}, False),
    "any size": ({"shapes": {"up": ["*", 3]}}, True),
    "one of several sizes": ({"shapes": {"up": [[1, 2], 3]}}, True),
    "none of several sizes": ({"shapes": {"up": [[1, 3], 3]}}, False),
    "further sizes": ({"shapes": {"deep": [2, "..."]}}, True),
    "further sizes after another": ({"shapes": {"deep": [3, "..."]}}, False),
    "one word": ({"shapes": {"up": ["x", "y"], "down": ["y", "x"]}}, True),
    "one word of two sizes": ({"shapes": {"up": ["x", "*"], "down": ["x", "*"]}}, False),
    "a shape of a missing tensor": ({"shapes": {"none": ["*"]}}, False),
    "every match has the shape": ({"shapes": {"*": [2, "..."]}}, False),
    "metadata": ({"metadata": {"format": "p*"}}, True),
    "other metadata": ({"metadata": {"format": "q*"}}, False),
    "missing metadata": ({"metadata": {"none": "*"}}, False),
    "a configuration": ({"config": {"r": 4}}, True),
    "another configuration": ({"config": {"r": 5}}, False),
    "a missing configuration": ({"config": {"none": ""}}, False),
}
FILE = Evidence(
    {"up": (2, 3), "down": (3, 2), "deep": (2, 1, 1)}, {"format": "pt"}, {"r": 4, "m": [1]}
)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_layout_holds_if_all_its_conditions_do(condition: str):
    layout, holds = CONDITIONS[condition]
    assert bool(fits(FILE, reader(layout))) == holds


def test_the_layout_with_the_most_conditions_counts():
    plain, exact = {"keys": ["up"]}, {"shapes": {"up": [2, 3]}}
    for layouts in ((plain, exact), (exact, plain)):
        (fit,) = recognise(FILE, [reader(*layouts)], BASES)
        assert fit.layout.shapes
    assert fits(FILE, reader(plain, exact), reader(plain)) == ["a file of edges (layout 1)"]
    assert len(fits(FILE, reader(plain), reader(plain))) == 2


def test_a_refusal_counts_more_within_a_reader_and_less_between_readers():
    plain, refused = {"keys": ["up", "down"]}, {"keys": ["up"], "refuses": "it is new"}
    assert fits(FILE, reader(plain, refused)) == ["a file of edges (layout 1)"]
    assert fits(FILE, reader(refused, refused), reader({"any": ["up"]})) == [
        "a file of edges (layout 0)"
    ]
    assert recognise(FILE, [reader(refused), reader({"any": ["up"]})], BASES)[0].is_readable


def test_facts_of_shapes_name_the_base():
    (fit,) = recognise(FILE, [reader({"shapes": {"up": ["width", "*"]}})], BASES)
    assert (fit.facts, fit.bases) == ({"width": (2,)}, ("small",))
    table = reader({"keys": ["up"]}, facts={"width": {"up": 0}, "rank": {"*": 0}}, what="an edge")
    (fit,) = recognise(FILE, [table], BASES)
    assert fit.facts == {"width": (2,), "rank": (2, 3)}
    assert str(fit) == "an edge for small (layout 0)"


@pytest.mark.parametrize(
    ("shape", "metadata", "bases"),
    [
        (5, {"ss_base": "large_1"}, ()),  # facts that no base states are not overruled
        (4, {"ss_base": "small_1"}, ("large",)),
    ],
)
def test_facts_count_more_than_metadata(shape: int, metadata: Mapping[str, str], bases: object):
    file = Evidence({"up": (shape,)}, metadata)
    (fit,) = recognise(file, [reader({"shapes": {"up": ["width"]}})], BASES)
    assert fit.bases == bases


@pytest.mark.parametrize("value", ["large_1", ["x", "large_1"], [["x"], 3, "large_1"]])
def test_metadata_or_configurations_name_the_base_otherwise(value: Any):
    file = Evidence({"up": (1,)}, {}, {"ss_base": value})
    (fit,) = recognise(file, [reader({"keys": ["up"]})], BASES)
    assert fit.bases == ("large",)


MISFITS: Mapping[str, tuple[Mapping[str, Any], str, Mapping[str, Any], str]] = {
    "another fact": ({"shapes": {"up": ["width", "*"]}}, "large", {"width": 4},
                     "it has width = 2, not 4"),
    "the same fact": ({"shapes": {"up": ["width", "*"]}}, "small", {"width": 2}, ""),
    "the same fact in a base of another name": (
        {"shapes": {"up": ["width", "*"]}}, "mine", {"width": 2}, ""),
    "a fixed base": ({"keys": ["up"], "base": "small"}, "small", {}, ""),
    "another fixed base": ({"keys": ["up"], "base": "small"}, "large", {}, "for another base"),
    "a further base": ({"keys": ["up"], "base": "small", "also": ["large"]}, "large", {}, ""),
    "neither the base nor a further one": (
        {"keys": ["up"], "base": "small", "also": ["large"]}, "mine", {}, "for another base"),
    "a fixed base, though a fact agrees": (
        {"shapes": {"up": ["width", "*"]}, "base": "small"}, "mine", {"width": 2},
        "for another base"),
    "an open base": ({"keys": ["up"]}, "large", {"width": 4}, ""),
    "a fact that the model does not state": (
        {"shapes": {"up": ["width", "*"]}}, "large", {}, "for another base"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_a_file_is_compared_with_a_model(case: str):
    layout, base, facts, words = MISFITS[case]
    (fit,) = recognise(FILE, [reader(layout)], BASES)
    reason = misfit(fit, base, facts)
    assert words in reason
    assert bool(words) == bool(reason)


def test_no_more_than_a_number_is_read_of_a_tensor():
    places = {
        "good": TensorPlace("F32", (), (0, 4)),
        "huge": TensorPlace("F32", (1,), (0, 10**12)),
        "backwards": TensorPlace("F32", (1,), (8, 4)),
        "matrix": TensorPlace("F32", (2, 2), (0, 16)),
        "unknown": TensorPlace("F8", (), (0, 1)),
    }

    def read(first: int, last: int) -> bytes:
        assert last - first <= 8
        return b"\0\0\x80?"[: last - first]

    assert numbers_in(Header(places), [*places], read) == {"good": 1.0}


FAULTS: Mapping[str, tuple[str, str]] = {
    "a layout of every file": ("", "it would fit every file. State a condition"),
    "weights that do not exist": ('keys = ["a"]\nweights = { encoder = "none" }', "'none'"),
    "a question that does not exist": ('keys = ["a"]\nasks = ["ending"]', "no table 'ending'"),
    "too many stars": ('keys = ["a*b*c*d*e*f*g*h"]', 'up to six "*"'),
    "a misspelt condition": ('kyes = ["a"]', "Did you mean 'keys'?"),
    "a size that is not a size": ('shapes = { a = [1.5] }', "should be a number"),
    "a path that leads far away": (
        'keys = ["a"]\n[adapter.edges.file.beside.x]\nfiles = ["../../x"]', "relative to"),
    "a default that is not a choice": (
        'keys = ["a"]\n[adapter.edges.file.asks.x]\nsummary = "s"\ndefault = "b"\n'
        "[adapter.edges.file.asks.x.choices.a]", "'b' is not one of the choices"),
    "an answer with weights that do not exist": (
        'keys = ["a"]\n[adapter.edges.file.asks.x]\nsummary = "s"\n'
        '[adapter.edges.file.asks.x.choices.a]\nweights = { w = "none" }', "'none'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_manifest_with_a_faulty_layout_is_refused(fault: str):
    text, words = FAULTS[fault]
    layout = '[adapter.edges.file]\nsummary = "s"\n[[adapter.edges.file.layout]]\nname = "n"\n'
    manifest, faults = parse(f"{EDGES_TOML}{layout}{text}\n", AdapterManifest)
    assert manifest is None
    assert words in str(faults[0])
    assert faults[0].line


def test_a_valid_layout_is_read():
    text = '[adapter.edges.file]\nsummary = "s"\n[[adapter.edges.file.layout]]\nname = "n"\n'
    manifest, faults = parse(f'{EDGES_TOML}{text}keys = ["a*"]\n', AdapterManifest)
    assert not faults
    assert manifest is not None
    assert isinstance(manifest.adapter["edges"].file, UserFile)


def test_the_adapter_that_a_training_names_goes_before_more_specific_layouts():
    other = reader({"keys": ["up", "down"]})._replace(name="other")
    named = reader({"keys": ["up"]})
    shapes = {"up": (2, 2), "down": (2, 2)}
    trained = {"refiners.training": "{}", "modelspec.architecture": "small/edges"}
    (fit,) = recognise(Evidence(shapes, trained), [other, named], BASES)
    assert fit.reader.name == "edges"
    for metadata in ({}, {"modelspec.architecture": "small/edges"}):
        (fit,) = recognise(Evidence(shapes, metadata), [other, named], BASES)
        assert fit.reader.name == "other"
