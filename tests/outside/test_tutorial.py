"""The tutorials are executed, command for command, from an empty folder and built wheels."""

import re
from pathlib import Path

import pytest
from refiners.testing import LoopbackHub

from .environment import ROOT, Environment
from .page import Reader, blocks, fault

TUTORIALS = sorted((ROOT / "docs" / "tutorial").glob("*.md"))


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_every_block_of_a_tutorial_can_be_executed(page: Path):
    steps = [*blocks(page)]
    assert {"sh", "python", "file"} <= {block.kind for block in steps}
    assert [fault(block) for block in steps if fault(block)] == []


def test_the_base_model_of_the_tutorial_is_the_package_that_is_tried_here():
    (page,) = (page for page in TUTORIALS if page.stem == "base-model")
    (code,) = (block for block in blocks(page) if block.file.endswith("model.py"))
    assert code.text == (PACKAGES / "studio" / code.file).read_text()


def test_every_package_is_valid():
    for folder in PACKAGES.iterdir():
        assert validate(folder) == (), folder.name


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_from_an_empty_folder(
    page: Path, environment: Environment, hub: LoopbackHub, tmp_path: Path
):
    folder = tmp_path / "reader"
    folder.mkdir()
    before = environment.names()
    began = time.monotonic()
    Reader(environment, folder).follow(page)
    print(f"{page.name}: {time.monotonic() - began:.0f} s")
    assert time.monotonic() - began < LIMIT
    assert hub.repositories
    (dist,) = environment.names() - before
    name = dist.removeprefix("refiners-")
    inventory = environment.report("refiners", "list")
    assert name in {entry["name"] for entry in (*inventory["adapters"], *inventory["models"])}
    assert [*folder.glob(f"{dist}/dist/{dist.replace('-', '_')}-*.whl")]
    environment.uninstall(dist)


@pytest.mark.slow
def test_the_tutorial_ends_with_a_changed_picture_and_a_known_wheel(reader_folder: Path):
    before, after = (Image.open(reader_folder / f"{name}.png") for name in ("red", "blue"))
