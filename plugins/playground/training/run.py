"""The folder, checkpoints, log and command line of a training run."""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch

RUNS = Path(__file__).parent / "runs"
WEIGHTS = Path(__file__).parents[1] / "src" / "refiners_playground" / "weights"


class Run:
    """A named training run, which resumes from its last checkpoint."""

    def __init__(self, name: str, every: float = 120.0) -> None:
        self.folder = RUNS / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint = self.folder / "checkpoint.pt"
        self.every = every
        self.saved = time.monotonic()

    def resume(self) -> dict[str, Any] | None:
        """Returns the last checkpoint, if any."""
        if not self.checkpoint.exists():
            return None
        return torch.load(
            self.checkpoint, weights_only=True, map_location=torch.get_default_device()
        )

    def is_due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return time.monotonic() - self.saved > self.every

    def save(self, state: dict[str, Any]) -> None:
        """Writes a checkpoint; an interrupted write keeps the previous one."""
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)
        self.saved = time.monotonic()

    def log(self, **figures: Any) -> None:
        """Prints figures and appends them to the run's log, with the processor time so far."""
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
        line = json.dumps({"cpu_s": round(time.process_time()), **rounded})
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")


def arguments(description: str, **defaults: int) -> argparse.Namespace:
    """Reads the command line of a training script: its numbers, `--threads`, `--device` and
    `--fresh`.

    The device becomes torch's default one, on which networks are built and pictures are drawn.

    Args:
        description: The description in `--help`.
        defaults: The numeric options of the script; `steps` and `measure_every` among them.
    """
    parser = argparse.ArgumentParser(description=description)
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--device", default="cpu", help="such as cuda; cpu by default")
    parser.add_argument("--fresh", action="store_true", help="ignore the last checkpoint")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    torch.set_default_device(options.device)
    return options
