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


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_from_an_empty_folder(
    page: Path, environment: Environment, hub: LoopbackHub, tmp_path: Path
):
    folder = tmp_path / "reader"
    folder.mkdir()
    before = environment.names()
    reader = Reader(environment, folder)
    reader.follow(page)
    added = environment.names() - before
    assert hub.repositories
    assert re.search(r"^refiners-", " ".join(added)) is None, "the page uninstalls what it installs"
