from pathlib import Path

from refiners_train.evaluate.evaluation import Evaluation, evaluated
from refiners_train.evaluate.plan import Plan
from refiners_train.evaluate.result import Answer, Fault, Part, Trial

from .gauge import result

A, B = Part("a", "a"), Part("b", "b")


def test_groups_get_the_values_of_their_members_alone(tmp_path: Path):
    trials: list[Trial] = []

    def run(trial: Trial) -> Answer:
        trials.append(trial)
        return Answer(result(trial.title, value=0.8), titles=("a prompt",))

    settings = Trial(parts=(), count=64, seed=3, device="cpu")
    evaluation = evaluated(Plan(((A, B),), ()), settings, run, tmp_path)
    assert [trial.title for trial in trials] == ["a", "b", "a+b"]
    assert [bool(trial.alone) for trial in trials] == [False, False, True]
    assert trials[2].alone["a"]["hits"].value == 0.8
    assert {(trial.count, trial.seed) for trial in trials} == {(64, 3)}
    assert [*evaluation.pictures] == ["a", "b", "a+b"]
    assert all(folder.is_dir() for folder, _ in evaluation.pictures.values())


def test_a_trial_that_fails_takes_no_other_down():
    def run(trial: Trial) -> Answer:
        if trial.title == "a":
            return Answer(fault=Fault("a", "it crashed"))
        return Answer(result(trial.title))

    evaluation = evaluated(Plan(((A,), (B,)), ()), Trial(parts=()), run)
    assert [each.adapter for each in evaluation.results] == ["b"]
    assert evaluation.faults == (Fault("a", "it crashed"),)
    assert not evaluation.is_kept


def test_bars_are_kept_unless_one_is_missed_or_something_present_failed():
    kept, missed = result("a"), result("b", value=0.3)
    absent = Fault("c", "is not installed", is_absent=True)
    assert Evaluation((kept,), (absent,), {}).is_kept
    assert not Evaluation((kept, missed), (), {}).is_kept
    assert not Evaluation((kept,), (Fault("c", "crashed"),), {}).is_kept


def test_several_trials_run_at_a_time_and_keep_their_order():
    from threading import Barrier

    both = Barrier(2, timeout=10)

    def run(trial: Trial) -> Answer:
        both.wait()
        return Answer(result(trial.title))

    evaluation = evaluated(Plan(((A,), (B,)), ()), Trial(parts=()), run, jobs=2)
    assert [each.adapter for each in evaluation.results] == ["a", "b"]
