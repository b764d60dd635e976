"""Trains the playground's readers and adapters, several at once, and puts the files into packages.

Run it from any folder; it works in `runs/` beside it. A run that was stopped goes on: finished
trainings are skipped and others resume. A training that fails does not stop the others.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from result import fingerprint, install
from run import RUNS
from write_manifest import renew

HOME = Path(__file__).parent
RECIPES = HOME / "recipe"
READERS = ("train_recogniser", "train_identity_reader", "train_image_encoder", "train_dino_encoder")
"""The scripts that train networks which read pictures; they need no base."""
BASE = ("train_base",)
STAGES = ("readers", "base", "adapters")
SLOW = {"lcm-lora": 3.0, "instantid": 1.5, "controlnet-union": 1.3, "ic-light-fc": 1.3}
"""How much longer a step of some trainings takes; the longest trainings begin first."""


@dataclass
class Task:
    """A training: its name, its command, and the recipe of an adapter."""

    name: str
    command: list[str]
    recipe: Path | None = None

    @property
    def mark(self) -> Path:
        """The file that states what the last finished training was made of."""
        return RUNS / self.name / "finished.json"

    def is_finished(self) -> bool:
        """Whether an adapter was trained by this recipe on the present base and readers."""
        if self.recipe is None or not self.mark.is_file():
            return False
        return json.loads(self.mark.read_text("utf-8")) == fingerprint(self.recipe)


class Workshop:
    """Runs tasks as processes of their own, several at once.

    Args:
        jobs: The number of processes.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.running: set[subprocess.Popen[bytes]] = set()
        self.is_stopped = False

    def run(self, tasks: list[Task]) -> list[tuple[str, str, float]]:
        """Runs tasks and returns name, outcome and seconds of each."""
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(self._one, tasks))

    def stop(self) -> None:
        """Ends the processes; their checkpoints stay."""
        self.is_stopped = True
        for process in list(self.running):
            process.terminate()

    def _one(self, task: Task) -> tuple[str, str, float]:
        if self.is_stopped:
            return task.name, "not begun", 0.0
        if task.is_finished():
            print(f"{task.name:24} finished before", flush=True)
            return task.name, "finished before", 0.0
        log = RUNS / "log" / f"{task.name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        env = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads_for(self.jobs)),
            "OMP_WAIT_POLICY": "PASSIVE",
            "TQDM_MININTERVAL": "20",
        }
        begin = time.monotonic()
        with log.open("wb") as file:
            process = subprocess.Popen(
                task.command, stdout=file, stderr=subprocess.STDOUT, env=env, cwd=HOME
            )
            self.running.add(process)
            code = process.wait()
            self.running.discard(process)
        seconds = time.monotonic() - begin
        if code:
            outcome = "stopped" if self.is_stopped else f"FAILED ({last_line(log)})"
        else:
            outcome = self._kept(task)
        print(f"{task.name:24} {seconds:6.0f} s  {outcome}", flush=True)
        return task.name, outcome, seconds

    def _kept(self, task: Task) -> str:
        if task.recipe is None:
            return "trained"
        try:
            paths = install(task.name, RUNS / task.name)
        except Exception as error:  # the other trainings go on
            return f"FAILED to install ({error})"
        task.mark.write_text(json.dumps(fingerprint(task.recipe)), "utf-8")
        return "trained, " + ", ".join(path.name for path in paths)


def threads_for(jobs: int) -> int:
    """Returns the threads of each of several trainings, which also load their batches."""
    return max(1, (os.cpu_count() or 1) // (2 * jobs))


def last_line(log: Path) -> str:
    """Returns the line of a log that tells why it ended: that of an error, or the last one."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()]
    telling = [line for line in lines if line.startswith("error:")] or list(filter(None, lines))
    return (telling or ["no output"])[-1][:200]


def script(name: str, device: str) -> Task:
    """Returns the task of a script of this folder."""
    return Task(name, [sys.executable, str(HOME / f"{name}.py"), "--device", device])


def recipes(device: str, names: list[str], is_check: bool) -> list[Task]:
    """Returns the tasks of recipes, the longest first.

    Args:
        device: The device.
        names: The names of the adapters; none for all.
        is_check: Whether each is only tried with a few steps.
    """
    paths = [path for path in RECIPES.glob("*.toml") if not names or path.stem in names]
    steps = {
        path: int(path.read_text("utf-8").partition("\nsteps = ")[2].split()[0]) for path in paths
    }
    paths.sort(key=lambda path: -steps[path] * SLOW.get(path.stem, 1.0))
    if is_check:
        tool = [sys.executable, str(HOME / "check_recipe.py")]
        return [
            Task(f"check {path.stem}", [*tool, str(path), "--device", device]) for path in paths
        ]
    tool = [sys.executable, "-m", "refiners", "train"]
    return [Task(path.stem, [*tool, str(path), "--device", device], path) for path in paths]


def main() -> int:
    """Runs the stages and prints a summary; returns 1 if a training failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="the adapters; all by default")
    parser.add_argument("--stage", choices=STAGES, action="append", help="by default all")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--check", action="store_true", help="try recipes with a few steps only")
    options = parser.parse_args()
    stages = options.stage or (["adapters"] if options.names or options.check else [*STAGES])
    workshop = Workshop(options.jobs)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: workshop.stop())
    outcomes: list[tuple[str, str, float]] = []
    for stage in STAGES:
        if stage not in stages or workshop.is_stopped:
            continue
        names = READERS if stage == "readers" else BASE
        tasks = (
            recipes(options.device, options.names, options.check)
            if stage == "adapters"
            else [script(name, options.device) for name in names]
        )
        outcomes += workshop.run(tasks)
        if not options.check:
            for path in renew():
                print(f"renewed {path}")
    failed = [name for name, outcome, _ in outcomes if "FAILED" in outcome]
    done = sum("trained" in outcome for _, outcome, _ in outcomes)
    print(f"{done} trained, {len(failed)} failed{': ' if failed else ''}{', '.join(failed)}")
    return 1 if failed or workshop.is_stopped else 0


if __name__ == "__main__":
    sys.exit(main())
