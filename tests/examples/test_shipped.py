"""The examples that packages of this repository ship, and those of combinations."""

import ast
from pathlib import Path

import pytest
import refiners
from refiners.exhibit import run_example

ROOT = Path(__file__).parents[2]
COMBINATIONS = [
    refiners.Example(path, "refiners-core", "")
    for path in sorted((ROOT / "examples/combinations").glob("*.py"))
]
SHIPPED = [example for example in refiners.examples() if example.path.is_relative_to(ROOT)]
TOLERANCE = 6.0
"""The mean difference, of 255, between the pictures of two machines."""


def test_each_adapter_that_the_playground_can_show_has_an_example():
    runnable = {
        adapter.name
        for adapter in refiners.adapters()
        if any(base.startswith("playground") for base in adapter.spec.bases)
        or (not adapter.spec.weights and adapter.spec.file is None)
    }
    assert len(runnable) > 30
    loaded = {name for example in SHIPPED for name in example.loads}
    assert runnable - loaded == set()


def test_combinations_load_several_adapters():
    names = {adapter.name for adapter in refiners.adapters()}
    assert len(COMBINATIONS) >= 5
    for example in COMBINATIONS:
        assert len(names & {*example.loads}) >= 2, example.name


@pytest.mark.parametrize("example", [*SHIPPED, *COMBINATIONS], ids=lambda example: example.id)
def test_an_example_is_short_and_leaves_pictures(example: refiners.Example):
    assert [*example.faults()] == []
    source = example.path.read_text()
    assert len(source.splitlines()) <= 45
    stored = {n.id for n in ast.walk(ast.parse(source))
              if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}  # fmt: skip
    assert "pictures" in stored
    if example in SHIPPED:
        assert example.picture is not None


@pytest.mark.slow  # 3 s each
@pytest.mark.parametrize("example", [*SHIPPED, *COMBINATIONS], ids=lambda example: example.id)
def test_an_example_makes_the_picture_beside_it(example: refiners.Example):
    from PIL import Image, ImageChops, ImageStat

    sheet = run_example(example).sheet()
    assert sheet is not None
    if example.picture is not None:
        with Image.open(example.picture) as shipped:
            assert shipped.size == sheet.size
            difference = ImageChops.difference(shipped.convert("RGB"), sheet)
        assert max(ImageStat.Stat(difference).mean) < TOLERANCE
