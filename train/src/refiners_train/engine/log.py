"""The log of a run: a progress bar, and lines of JSON in a file."""

import json
import time
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

FILE: Final = "log.jsonl"
BOARD: Final = "tensorboard"


class Log:
    """Writes figures of a run.

    Args:
        folder: The output folder.
        steps: The number of steps of the run.
        first: The number of steps that are done.
        is_main: Whether this process writes; the others are silent.
        has_bar: Whether a progress bar is shown.
        tensorboard: Whether figures are also written for TensorBoard.
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        first: int,
        *,
        is_main: bool,
        has_bar: bool,
        tensorboard: bool = False,
    ) -> None:
        self._path: Final = folder / FILE
        self._is_main: Final = is_main
        self._shown: dict[str, str] = {}
        self._started: Final = time.monotonic()
        self._bar: Final = tqdm(
            total=steps, initial=first, unit="step", disable=not (is_main and has_bar)
        )
        self._board: Any = None
        if is_main:
            _forget_after(self._path, first)
        if tensorboard and is_main:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / BOARD), purge_step=first + 1)

    def advance(self, step: int) -> None:
        """Moves the progress bar to a step."""
        self._bar.update(step - self._bar.n)

    def write(self, step: int, **figures: float) -> None:
        """Appends figures to the log and shows them beside the bar."""
        if not self._is_main:
            return
        seconds = round(time.monotonic() - self._started, 2)
        line = {"step": step, "seconds": seconds, **figures}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._shown |= {name: f"{value:.4g}" for name, value in figures.items()}
        self._bar.set_postfix(self._shown)
        board = self._board
        if board is not None:
            for name, value in figures.items():
                board.add_scalar(name, value, step)

    def close(self) -> None:
        """Ends the progress bar."""
        self._bar.close()
        if self._board is not None:
            self._board.close()


def _forget_after(path: Path, step: int) -> None:
    """Drops the entries of steps that a resumed run takes again."""
    if not path.exists():
        return
    kept: list[str] = []
    for line in path.read_text("utf-8").splitlines():
        try:
            is_before = json.loads(line)["step"] <= step
        except ValueError:  # the last line of a run that was killed
            continue
        kept += [f"{line}\n"] if is_before else []
    path.write_text("".join(kept), "utf-8")
