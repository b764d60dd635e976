"""The packages of this repository are held to the contract that others are."""

import json
from pathlib import Path

import pytest
from refiners.authoring.validate import validate
from refiners_testkit import AdapterContract
from refiners_testkit.fresh_import import faults_of_import
from refiners_testkit.subject import subject_of

from .first_party import PLUGINS, ids_of, representatives

pytest_plugins = ["pytester"]
TEST = """
from pathlib import Path

from tests.testkit.first_party import contract_of

for name in {names}:
    contract = contract_of(Path({folder!r}), name, {{}})
    globals()[contract.__name__] = contract
"""
WHOLE = ("palette", "tokens")
"""The packages that pass every check with the options of the matrix alone; other adapters need more
files, other options or other runs than the kit's, which their own tests have."""


def test_no_package_loads_torch_when_it_is_imported():
    assert faults_of_import(*(subject_of(folder / "_") for folder in PLUGINS)) == []


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_package_lacks_nothing_but_pins_and_licenses_of_weights(folder: Path):
    findings = validate(folder, is_strict=True)
    others = [f for f in findings if f.rule != "pins" and ".weights." not in f.what]
    assert others == []


@pytest.mark.slow
@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_package_has_a_verdict_on_every_check(
    folder: Path,
    pytester: pytest.Pytester,
    pytestconfig: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
):
    """Writes `NAME.json` of each package into the folder that `--conformance` names."""
    names = [adapter.name for adapter in representatives(folder)]
    if not names:
        return
    wanted: Path | None = pytestconfig.getoption("--conformance")
    (pytester.path / "test_all.py").write_text(TEST.format(names=names, folder=str(folder)))
    report = (wanted.resolve() if wanted else pytester.path) / f"{folder.name}.json"
    monkeypatch.setenv("PYTHONPATH", str(PLUGINS[0].parents[1]))
    pytester.runpytest_subprocess("--conformance", report, "-p", "no:cacheprovider", "-q")
    content = json.loads(report.read_text())
    reports = content if isinstance(content, list) else [content]
    assert {report["name"] for report in reports} == set(names)
    checks = {report["name"]: {row["check"] for row in report["checks"]} for report in reports}
    assert all(checked == ids_of(AdapterContract) for checked in checks.values())
    failed = [
        (report["name"], row["check"], row["reason"])
        for report in reports
        for row in report["checks"]
        if row["verdict"] == "fail"
    ]
    assert not failed or folder.name not in WHOLE
