"""Two processes train as one does, and only the first writes."""

import json
import os
import subprocess
import sys

import pytest
import torch
from refiners_train import train

from refiners_core.weights import read

from .project import project

TRAIN = "import sys; from refiners_train import train; train(sys.argv[1], device='cpu')"


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
    settings = {"steps": 4, "batch": 3, "learning-rate": 1e-3}
    alone = train(project(tmp_path / "alone", **settings), device="cpu", progress=False)
    path = project(tmp_path / "both", **settings)
    script = tmp_path / "script.py"
    script.write_text(TRAIN)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*launch, str(script), str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=120,
    )
    both = tmp_path / "both" / "run"
    left, right = losses(alone), losses(both)
    assert left.keys() == right.keys() == {1, 2, 3, 4}
    assert list(left.values()) == pytest.approx(list(right.values()), rel=1e-4)
    one, two = read(alone / "run.safetensors"), read(both / "run.safetensors")
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-2, atol=1e-4)


def losses(folder):
    """Returns the loss of each step in the log, which has each once."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert len(lines) == len({line["step"] for line in lines})
    return {line["step"]: line["loss"] for line in lines}
