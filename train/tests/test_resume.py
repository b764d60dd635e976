"""A run that was interrupted goes on with the numbers of an uninterrupted one, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import refiners
import torch
from refiners_train import train
from refiners_train.engine.checkpoint import (
    FILE,
    ResumeError,
    read_checkpoint,
    write_checkpoint,
)
from refiners_train.engine.log import Log

from refiners_core.weights import read

from .project import project
from .tiny import Pictures, batches, config, run, tiny_loop


def settings(optimiser):
    return config(
        steps=8,
        batch=4,
        accumulation=2,
        average=0.9,
        optimiser=optimiser,
        data={"text-dropped": 0.3},
    )


@pytest.mark.parametrize(
    ("optimiser", "stop"),
    [
        ("adamw", 5),
        ("muon", 1),
        pytest.param("adamw", 1, marks=pytest.mark.slow),
        pytest.param("muon", 5, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_has_the_same_losses_and_weights(tmp_path, optimiser, stop):
    """With 10 examples in batches of 4, step 5 is in the middle of the second epoch."""
    source = Pictures(10)
    straight = tiny_loop(settings(optimiser))
    losses = run(straight, source)

    broken = tiny_loop(settings(optimiser))
    run(broken, source, stop)
    write_checkpoint(tmp_path, {"run": {}, "loop": broken.state_dict()})
    stop_inside_a_batch(broken, source)

    resumed = tiny_loop(settings(optimiser))
    held = [weight.data_ptr() for weight in resumed.learners.weights]
    resumed.load_state_dict(read_checkpoint(tmp_path, {})["loop"])
    assert run(resumed, source) == losses[stop:]
    assert [weight.data_ptr() for weight in resumed.learners.weights] == held
    assert all(map(torch.equal, resumed.learners.weights, straight.learners.weights))
    assert all(map(torch.equal, resumed.average.means, straight.average.means))


def stop_inside_a_batch(loop, source):
    """Ends a step after the first part of its batch."""
    sums, parts = loop.objective.sums, iter([True])

    def failing(batch, drawn):
        if next(parts, None) is None:
            raise KeyboardInterrupt
        return sums(batch, drawn)

    loop.objective.sums = failing
    with pytest.raises(KeyboardInterrupt):
        loop.take(*next(batches(loop, source)))


def test_a_checkpoint_of_another_run_is_refused_in_words(tmp_path):
    write_checkpoint(tmp_path, {"run": {"train.seed": 0, "examples": "a"}, "loop": {}})
    with pytest.raises(ResumeError, match=r"train\.seed: 0 then, 1 now") as refusal:
        read_checkpoint(tmp_path, {"train.seed": 1, "examples": "a"})
    assert "examples" not in str(refusal.value)
    assert "--fresh" in str(refusal.value)


def test_an_interrupted_write_keeps_the_checkpoint(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, {"run": {}, "loop": {"step": 1}})

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="space"):
        write_checkpoint(tmp_path, {"run": {}, "loop": {"step": 2}})
    assert read_checkpoint(tmp_path, {})["loop"] == {"step": 1}


def test_the_log_forgets_the_steps_that_are_taken_again(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3)) + '{"ste')
    Log(tmp_path, 5, 2, is_main=True, has_bar=False).write(3, loss=1.0)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3]
    assert json.loads(log.read_text().splitlines()[-1])["loss"] == 1.0


def test_another_base_is_refused(tmp_path):
    path = project(tmp_path, steps=1)
    folder = train(path, device="cpu", progress=False)
    state = torch.load(folder / FILE, weights_only=True)
    state["run"]["files of the base"]["unet"] = "0" * 64
    torch.save(state, folder / FILE)
    with pytest.raises(ResumeError, match="files of the base"):
        train(path, device="cpu", progress=False)
    train(path, device="cpu", progress=False, fresh=True)


@pytest.mark.slow
def test_killed_runs_go_on_to_the_same_file(tmp_path):
    """Kills a training with SIGKILL several times, wherever it is."""
    straight = train(project(tmp_path / "straight", steps=12), device="cpu", progress=False)
    path = project(tmp_path / "killed", steps=12)
    command = [sys.executable, "-m", "refiners", "train", str(path)]
    output = tmp_path / "killed" / "run"
    for steps in (3, 8):
        process = subprocess.Popen(
            [*command, "--device", "cpu"], env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        while steps_in(output) < steps:
            assert process.poll() is None, "the run ended before it was killed"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (output / "run.safetensors").exists()
    torch.set_num_threads(1)
    resumed = train(path, device="cpu", progress=False)
    left, right = (read(folder / "run.safetensors") for folder in (straight, resumed))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)
    model = refiners.load_model("playground")
    refiners.load_adapter(resumed / "run.safetensors", model)


def steps_in(folder):
    """Returns the last step in the log of a run."""
    try:
        lines = (folder / "log.jsonl").read_text().splitlines()
        return max((json.loads(line)["step"] for line in lines), default=0)
    except (FileNotFoundError, json.JSONDecodeError):
        return 0
