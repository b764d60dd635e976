"""The kit accepts a good package, and catches each fault by the check that is about it."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from refiners.cli import main
from refiners_testkit import AdapterContract

from .shade import MUTANTS, Mutant, written

USUAL = ("leaked hook", "unpinned revision")
"""The mutants that every run tries; the others are tried in slow ones."""
TEST = """
from refiners_testkit import AdapterContract


class TestShade(AdapterContract):
    name = "shade"
"""
pytest_plugins = ["pytester"]


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(
            mutant, id=mutant.fault, marks=[] if mutant.fault in USUAL else pytest.mark.slow
        )
        for mutant in MUTANTS
    ],
)
def test_a_fault_is_caught_by_its_check(mutant: Mutant, tmp_path: Path):
    with written(tmp_path, mutant) as contract:
        ask = getattr(contract(), f"test_{mutant.check}")
        with pytest.raises(pytest.fail.Exception, match=mutant.words):
            ask()


@pytest.mark.parametrize("check", dict.fromkeys(m.check for m in MUTANTS if m.fault in USUAL))
def test_the_good_package_passes_the_same_check(check: str, tmp_path: Path):
    with written(tmp_path) as contract:
        getattr(contract(), f"test_{check}")()


def test_the_good_package_is_valid(tmp_path: Path):
    with written(tmp_path):
        result = CliRunner().invoke(main, ["validate", "--strict", str(tmp_path)])
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_the_good_package_passes_every_check(pytester: pytest.Pytester):
    report = pytester.path / "conformance.json"
    with written(pytester.path):
        (pytester.path / "test_shade.py").write_text(TEST)
        result = pytester.runpytest_inprocess("--conformance", report, "-p", "no:cacheprovider")
    verdicts = {row["check"]: row for row in json.loads(report.read_text())["checks"]}
    assert [row for row in verdicts.values() if row["verdict"] != "pass"] == []
    assert set(verdicts) == ids_of(AdapterContract)
    result.assert_outcomes(passed=len(verdicts))


def ids_of(contract: type) -> set[str]:
    """Returns the ids of the checks of a contract."""
    tests = [getattr(contract, name) for name in dir(contract) if name.startswith("test_")]
    return {test.pytestmark[0].args[0] for test in tests}


def test_every_check_of_an_adapter_has_a_row_in_the_guide():
    page = (Path(__file__).parents[2] / "docs/guide/testkit.md").read_text()
    missing = [name for name in ids_of(AdapterContract) if f"| `{name}` |" not in page]
    assert missing == []


def test_a_report_has_verdicts_with_reasons(pytester: pytest.Pytester):
    report = pytester.path / "out" / "conformance.json"
    with written(pytester.path, next(m for m in MUTANTS if m.fault == "unpinned revision")):
        text = f'{TEST}    overruled = {{"advice": "the sampler is in another package"}}\n'
        (pytester.path / "test_shade.py").write_text(text)
        pytester.runpytest_inprocess(
            *("--conformance", report, "-p", "no:cacheprovider"),
            *("-k", "pinned or advice or plain or fit_to"),
            *("--deselect", "test_shade.py::TestShade::test_the_wheel_is_fit_to_publish"),
        )
    document = json.loads(report.read_text())
    assert (document["schema"], document["name"], document["dist"]) == (
        1,
        "shade",
        "refiners-shade",
    )
    assert (document["version"], document["core"]) == ("0.1.0", "1.0")
    checks = {row["check"]: (row["verdict"], row["reason"]) for row in document["checks"]}
    assert checks["advice"] == ("not-run", "overruled: the sampler is in another package")
    assert checks["text"] == ("pass", None)
    verdict, reason = checks["pins"]
    assert verdict == "fail"
    assert "shade.weights.shade: the revision is unknown" in reason
    assert len(checks) == 3


def test_importing_the_kit_for_pytest_loads_no_torch():
    import subprocess

    program = "import sys, refiners_testkit.plugin; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
