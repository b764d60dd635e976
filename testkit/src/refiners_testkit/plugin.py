"""The pytest plugin: the option `--conformance`, the fixtures and the report."""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from refiners_testkit.check import MARK

if TYPE_CHECKING:
    from refiners.testing import LoopbackHub

    from refiners_testkit.conformance import Conformance, Verdict
    from refiners_testkit.installation import IsolatedRegistry

_PROPERTY: Final = "refiners-conformance"
"""The name under which a report of a test carries its check, also between processes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--conformance FILE`."""
    parser.getgroup("refiners").addoption(
        "--conformance",
        type=Path,
        metavar="FILE",
        help="write the verdicts of the contracts of Refiners to this JSON file",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Registers the mark of checks, and the collector of verdicts if a report is wanted."""
    config.addinivalue_line("markers", f"{MARK}(id): a check of a contract of Refiners")
    path = config.getoption("--conformance")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Collector(path), "refiners-conformance")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a check that its contract overrules."""
    name = _check_of(item)
    reason = getattr(getattr(item, "cls", None), "overruled", {}).get(name)
    if reason:
        pytest.skip(f"overruled: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attaches the check, its subject and the reason to the report of a test."""
    report = yield
    identify = getattr(getattr(item, "cls", None), "identity", None)
    if (name := _check_of(item)) and identify is not None:
        facts = {"check": name, "reason": _reason(report, call), **identify()}
        report.user_properties.append((_PROPERTY, facts))
    return report


def _check_of(item: pytest.Item) -> str:
    mark = item.get_closest_marker(MARK)
    return mark.args[0] if mark is not None else ""


def _reason(report: pytest.TestReport, call: pytest.CallInfo[None]) -> str | None:
    if report.passed or call.excinfo is None:
        return None
    return str(call.excinfo.value) or call.excinfo.typename


class _Collector:
    """Collects the verdicts of all processes, and writes them at the end of the session."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.reports: Final[dict[tuple[str, str], Conformance]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Records the verdict of a check."""
        from refiners_testkit.conformance import Conformance

        for key, value in report.user_properties:
            if key != _PROPERTY or (report.passed and report.when != "call"):
                continue
            facts: Any = value
            subject = {name: facts[name] for name in ("name", "dist", "version")}
            known = self.reports.setdefault((facts["dist"], facts["name"]), Conformance(**subject))
            verdicts: dict[str, Verdict] = {"passed": "pass", "failed": "fail"}
            known.add(facts["check"], verdicts.get(report.outcome, "not-run"), facts["reason"])

    def pytest_sessionfinish(self) -> None:
        """Writes the report, if a contract was checked."""
        from refiners_testkit.conformance import write_reports

        if self.reports:
            write_reports(self.reports.values(), self.path)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Counts the verdicts, and names the file."""
        for report in self.reports.values():
            counts = {"pass": 0, "fail": 0, "not-run": 0}
            for verdict, _ in report.verdicts.values():
                counts[verdict] += 1
            numbers = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
            terminalreporter.write_line(f"{report.dist}:{report.name}: {numbers}; {self.path}")


@pytest.fixture
def loopback_hub(tmp_path: Path) -> Iterator["LoopbackHub"]:
    """A Hub on this machine, with an empty cache, that this process uses in place of the real
    one."""
    from refiners.testing import LoopbackHub

    with LoopbackHub() as hub, hub.in_use(tmp_path / "hub"):
        yield hub


@pytest.fixture
def isolated_registry(tmp_path: Path) -> Iterator["IsolatedRegistry"]:
    """A registry that knows only the packages that the test adds: `isolated_registry.add(tree)`."""
    from refiners_testkit.installation import isolated

    with isolated(tmp_path / "site") as registry:
        yield registry


@pytest.fixture
def tiny_model() -> Callable[..., Any]:
    """A function that builds a tiny model of a family with random weights from a fixed seed:
    `tiny_model("sd15")`, `tiny_model("sdxl")` or `tiny_model("language")`."""
    from refiners_testkit.family import tiny_model as build

    return build
