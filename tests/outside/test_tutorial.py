"""The tutorials are executed, command for command, from an empty folder and built wheels."""

import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refiners.authoring.validate import validate
from refiners.testing import LoopbackHub

from .environment import PACKAGES, ROOT, Environment
from .page import Reader, blocks, fault

LIMIT = 300
"""The most seconds of a core that a tutorial may take."""
TUTORIALS = sorted((ROOT / "docs" / "tutorial").glob("*.md"))


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_every_block_of_a_tutorial_can_be_executed(page: Path):
    steps = [*blocks(page)]
    assert {"sh", "python", "file"} <= {block.kind for block in steps}
    assert [fault(block) for block in steps if fault(block)] == []


def test_the_base_model_of_the_tutorial_is_the_package_that_is_tried_here():
    (page,) = (page for page in TUTORIALS if page.stem == "base-model")
    (code,) = (block for block in blocks(page) if block.file.endswith("/model.py"))
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
    began = spent()
    Reader(environment, folder).follow(page)
    print(f"{page.name}: {spent() - began:.0f} s of a core")
    assert spent() - began < LIMIT
    assert hub.repositories
    (dist,) = environment.names() - before
    name = dist.removeprefix("refiners-")
    inventory = environment.report("refiners", "list")
    assert name in {entry["name"] for entry in (*inventory["adapters"], *inventory["models"])}
    assert f"{dist}:{name}" in environment.run("refiners", "info", name).out
    assert [*folder.glob(f"{dist}/dist/{dist.replace('-', '_')}-*.whl")]
    assert f'id = "{dist}:{name}"' in next(folder.rglob("refiners.lock")).read_text()
    assert environment.report("refiners", "doctor") == {"problems": []}
    if page.stem == "adapter":
        check_picture(folder)
        assert f"{dist}:{name}" in environment.run("refiners", "why", name, "playground").out
        assert name in (folder / "site" / "index.html").read_text()
    environment.uninstall(dist)


def spent() -> float:
    """Returns the seconds of a core that ended child processes have taken.

    On a machine with nothing else to do, a page takes about as long.
    """
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def check_picture(folder: Path) -> None:
    """Asserts that the star is red without the adapter and blue with it, and nothing else is."""
    red, blue = (np.asarray(Image.open(folder / f"{name}.png"), int) for name in ("red", "blue"))
    assert red[32, 32, 0] > red[32, 32, 2] + 100
    assert blue[32, 32, 2] > blue[32, 32, 0] + 100
    assert np.abs(red - blue)[:8, :8].mean() < 20
