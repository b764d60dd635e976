"""Packages add commands to the shell, which are listed without an import and fail alone."""

import json
import sys

import pytest
import refiners
from click.testing import CliRunner, Result
from refiners.cli import main
from refiners.doctor import examine

from ..conftest import Site

COUNT = """
import click
from refiners_core.command import Report, Shell
from refiners_core.errors import RefinersError


@click.group()
def count():
    "Count layers."


@count.command()
@click.argument("model")
@click.pass_obj
def layers(shell: Shell, model: str) -> Report:
    "Count the layers of MODEL."
    total = len([*shell.outline(model).modules()])
    print("counting")
    return Report(model, ("what", "count"), [("layers", total)], {"layers": total})


@count.command()
def check() -> Report:
    "Check what does not hold."
    return Report("missed", ("what",), [("layers",)], {"kept": False}, exit_code=1)


@count.command()
@click.option("--steps", type=int, default=1)
def fail(steps: int) -> int:
    "Fail, with an exit code of STEPS."
    if steps == 0:
        raise RefinersError("steps=0 counts nothing.", hint="Try steps=2.")
    return steps
"""
POINTS = "[refiners.commands]\n{} = {}\n"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def counting(site: Site) -> Site:
    site.add_toy()
    points = POINTS.format("count", "refiners_count.command:count")
    site.add("refiners-count", files={"command.py": COUNT}, entry_points=points)
    return site


def test_the_help_lists_a_command_without_importing_it(counting: Site) -> None:
    result = run("--help")
    assert "  count  A command of refiners-count." in result.stdout
    assert "refiners_count" not in sys.modules
    assert "Count the layers" in run("count", "--help").stdout


def test_a_report_is_printed_as_a_table_or_as_json(counting: Site) -> None:
    assert "layers  3" in run("count", "layers", "toy").stdout
    result = run("count", "layers", "toy", "--json")
    assert json.loads(result.stdout) == {"layers": 3}
    assert "counting" in result.stderr
    assert json.loads(run("refiners-count:count", "layers", "toy", "--json").stdout)


def test_a_report_may_fail_its_command(counting: Site) -> None:
    for result in (run("count", "check"), run("count", "check", "--json")):
        assert result.exit_code == 1
        assert result.stdout
        assert result.stderr == ""


def test_errors_and_exit_codes_are_those_of_the_shell(counting: Site) -> None:
    assert run("count", "fail", "--steps", "3").exit_code == 3
    result = run("count", "fail", "--steps", "0")
    assert (result.exit_code, result.stderr) == (
        1,
        "error: --steps 0 counts nothing.\n  Try --steps 2.\n",
    )
    unknown = run("count", "layers", "nothing", "--json")
    assert json.loads(unknown.stdout)["error"]["code"] == "name-unknown"
    assert run("count", "fails").exit_code == 2


@pytest.mark.parametrize(
    ("name", "reference", "message"),
    [
        ("list", "refiners_bad.command:count", "has the name of a command of Refiners itself"),
        ("Bad name", "refiners_bad.command:count", "lower-case words and hyphens"),
        ("bad", "refiners_bad.command", "should be 'module:object'"),
    ],
)
def test_a_command_that_is_refused_is_a_notice(
    counting: Site, name: str, reference: str, message: str
) -> None:
    points = POINTS.format(name, reference)
    counting.add("refiners-bad", files={"command.py": COUNT}, entry_points=points)
    result = run("--help")
    assert result.exit_code == 0
    assert "note: refiners-bad" in result.stderr
    assert message in result.stderr
    assert "  count  " in result.stdout
    assert "refiners-toy 1.2" in run("list").stdout
    (problem,) = [p for p in examine(is_probing=False, reserved=("list",)) if p.kind == "command"]
    assert (problem.dist, message in problem.what) == ("refiners-bad", True)


def test_a_name_of_two_packages_is_refused_and_both_have_a_long_one(counting: Site) -> None:
    points = POINTS.format("count", "refiners_other.command:count")
    counting.add("refiners-other", files={"command.py": COUNT}, entry_points=points)
    result = run("--help")
    assert "note: 'count' is a command of several packages" in result.stderr
    assert "  count  " not in result.stdout
    refused = run("count", "layers", "toy")
    assert refused.exit_code == 2
    assert "'count' is a command of 2 packages: refiners-count and refiners-other" in refused.stderr
    assert run("refiners-other:count", "layers", "toy").exit_code == 0
    kinds = [problem.kind for problem in examine(is_probing=False)]
    assert kinds == ["duplicate"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("count = len", "not a command of click"),
        ("", "no attribute"),
    ],
)
def test_a_command_that_cannot_be_imported_fails_alone(
    counting: Site, code: str, message: str
) -> None:
    points = POINTS.format("bad", "refiners_bad.command:count")
    counting.add("refiners-bad", files={"command.py": code}, entry_points=points)
    assert "  bad    " in run("--help").stdout
    result = run("bad", "layers")
    assert (result.exit_code, message in result.stderr) == (1, True)
    assert run("count", "layers", "toy").exit_code == 0


def test_a_policy_is_consulted_before_the_import(
    counting: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = counting.folder / "policy.toml"
    policy.write_text('schema = 1\n[packages]\ndeny = ["refiners-count"]\n')
    monkeypatch.setenv("REFINERS_POLICY", str(policy))
    result = run("count", "layers", "toy")
    assert result.exit_code == 4
    assert "refiners-count:count is refused" in result.stderr
    assert "refiners_count" not in sys.modules


def test_a_package_of_commands_alone_is_no_broken_plugin(counting: Site) -> None:
    assert refiners.broken() == ()
