"""Every example runs as a reader runs it."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_shows_something(path: Path, capsys: pytest.CaptureFixture[str]):
    names = runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out or names["pictures"]
