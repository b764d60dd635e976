import csv
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from refiners.cli import main
from refiners_train.evaluate import process
from refiners_train.evaluate.record import BEGIN, END
from refiners_train.evaluate.result import Answer, Fault, Trial

from .gauge import result


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["evaluate", *arguments], env={"COLUMNS": "200"})


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    trials: list[Trial] = []

    def apart(trial: Trial) -> Answer:
        trials.append(trial)
        if trial.title == "palette":
            return Answer(fault=Fault("palette", "it crashed"))
        return Answer(result(trial.title, value=0.4 if trial.title == "ip-adapter" else 0.9))

    monkeypatch.setattr(process, "run_apart", apart)
    return trials


def test_a_table_is_printed_and_the_settings_are_passed_on(trials: list[Trial]):
    shown = run("lora-ink", "--seed", "4", "--count", "70", "--steps", "9", "--batch", "5")
    assert shown.exit_code == 0
    assert "lora-ink  hits     0.10     0.90  0.80...1.00  96" in shown.stdout
    [trial] = trials
    assert (trial.seed, trial.count, trial.steps, trial.batch) == (4, 70, 9, 5)


def test_a_missed_bar_fails_only_a_check(trials: list[Trial]):
    assert run("ip-adapter").exit_code == 0
    missed = run("ip-adapter", "--check")
    assert missed.exit_code == 1
    assert missed.stdout.startswith("missed: ip-adapter: hits")
    assert run("lora-ink", "--check").exit_code == 0


def test_a_trial_that_fails_is_noted_beside_the_others(trials: list[Trial]):
    shown = run("palette", "lora-ink")
    assert "note: palette is not measured: it crashed" in shown.stderr
    assert "0.90" in shown.stdout
    assert shown.exit_code == 1


def test_json_csv_and_page_have_the_results(trials: list[Trial], tmp_path: Path):
    page = tmp_path / "effects.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    shown = run("lora-ink", "--json", "--csv", str(tmp_path / "a.csv"), "--docs", str(page))
    facts = json.loads(shown.stdout)
    assert facts["kept"] is True
    assert facts["results"][0]["rows"][0]["value"]["value"] == 0.9
    [row] = csv.DictReader((tmp_path / "a.csv").read_text().splitlines())
    assert row["adapter"] == "lora-ink"
    assert "`lora-ink`" in page.read_text()
    assert page.with_suffix(".json").exists()


def test_a_page_without_a_place_is_refused_before_anything_is_measured(
    trials: list[Trial], tmp_path: Path
):
    shown = run("lora-ink", "--docs", str(tmp_path / "none.md"))
    assert shown.exit_code != 0
    assert "measured: begin" in shown.stderr
    assert trials == []


def test_too_few_samples_are_refused(trials: list[Trial]):
    assert run("lora-ink", "--count", "63").exit_code == 2
    assert trials == []


def test_the_help_needs_no_torch():
    import subprocess

    program = (
        "import sys; from refiners_train.evaluate import command; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False"
