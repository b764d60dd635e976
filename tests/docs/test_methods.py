"""The guide's table of methods is the one that its record gives."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guide" / "methods.md"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch):
    """Makes the scripts of the comparison importable for a test, and unloads them afterwards."""
    path = ROOT / "benchmarks" / "methods"
    before = set(sys.modules)
    monkeypatch.syspath_prepend(path)
    yield path
    for name in set(sys.modules) - before:
        if path in Path(str(getattr(sys.modules[name], "__file__", None))).parents:
            del sys.modules[name]


def test_the_table_is_that_of_the_record(folder: Path):
    from compare import METHODS
    from refiners_train.evaluate.record import filled
    from table import as_markdown, read_entries

    entries = read_entries(PAGE)
    assert filled(PAGE, as_markdown(entries)) == PAGE.read_text("utf-8")
    assert [entry.method for entry in entries] == ["", *METHODS]
    assert all(entry.count >= 64 for entry in entries)


def test_each_method_differs_in_its_adapter_and_its_rates_alone(folder: Path):
    from compare import METHODS
    from refiners_train import load_config

    configs = [load_config(folder / f"{name}.toml") for name in METHODS]
    assert len({str(config.adapter) for config in configs}) == len(METHODS)
    first = configs[0].train
    for config in configs:
        assert config.data.options == configs[0].data.options
        assert (config.train.steps, config.train.batch, config.train.seed) == (
            *(first.steps, first.batch, first.seed),
        )


@pytest.mark.slow
def test_a_method_is_trained_and_measured(folder: Path):
    from trial import measured

    before, features = measured("", "cpu", None, 4)
    after, _ = measured("lora", "cpu", 12, 4, features)
    assert (before.size, before.drift.value) == (0, pytest.approx(0, abs=1e-5))
    assert after.size > 100_000
    assert after.parameters > 10_000
    assert after.drift.value > 0
