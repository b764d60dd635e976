import subprocess
from types import SimpleNamespace

import pytest
from refiners_train.evaluate import process
from refiners_train.evaluate.process import answer, run_apart
from refiners_train.evaluate.result import Part, Trial


def test_an_error_becomes_an_answer_and_an_absent_adapter_is_told_apart():
    unknown = answer(Trial(parts=(Part("lora-ink", "no-such-adapter"),), count=1, steps=1))
    assert unknown.fault is not None
    assert "no-such-adapter" in unknown.fault.what
    assert unknown.fault.is_absent
    broken = answer(Trial(parts=(Part("lora-ink", "lora-ink"),), count=1, steps=-1))
    assert broken.fault is not None
    assert not broken.fault.is_absent


def test_a_process_that_is_killed_becomes_an_answer(monkeypatch: pytest.MonkeyPatch):
    done = SimpleNamespace(returncode=-9, stderr=b"")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    fault = process.run_apart(Trial(parts=(Part("a", "b"),))).fault
    assert fault is not None
    assert fault.what == "the process was ended by signal 9, as when memory runs out"


def test_the_last_line_of_a_crash_is_shown(monkeypatch: pytest.MonkeyPatch):
    done = SimpleNamespace(returncode=1, stderr=b"Traceback\n  line\nTypeError: a reason\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    fault = process.run_apart(Trial(parts=(Part("a", "b"),))).fault
    assert fault is not None
    assert fault.what == "TypeError: a reason"


@pytest.mark.slow
def test_a_trial_runs_in_a_process_of_its_own_with_a_peak_of_its_own():
    ballast = bytearray(900 * 1024**2)  # of this process, which is larger than the other
    result = run_apart(Trial(parts=(Part("lora-ink", "lora-ink"),), count=2, steps=1)).result
    assert result is not None
    assert 100 < result.memory < len(ballast) / 1024**2
    assert result.rows[0].n == 2
