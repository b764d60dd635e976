"""Runs each trial in a process of its own, so that its peak memory is its own and a crash costs no
other; `python -m refiners_train.evaluate.process` is that process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from refiners_train.evaluate.result import Answer, Fault, Trial

_ANSWER: Final = "answer.json"
_TAIL: Final = 400
"""The number of characters of a crashed process's last line that are shown."""


def run_apart(trial: Trial) -> Answer:
    """Measures a trial in a new process; whatever happens there becomes an answer."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", __name__, folder]
        done = subprocess.run(command, input=msgspec.json.encode(trial), stderr=subprocess.PIPE)
        path = Path(folder, _ANSWER)
        if path.exists():
            return msgspec.json.decode(path.read_bytes(), type=Answer)
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        words = "; ".join(lines[-1:])[:_TAIL]
    if done.returncode < 0:
        words = f"the process was ended by signal {-done.returncode}, as when memory runs out"
    return Answer(fault=Fault(trial.title, words or f"exit code {done.returncode}"))


def answer(trial: Trial) -> Answer:
    """Measures a trial in this process; an error becomes an answer."""
    from refiners.errors import (
        IncompatibleError,
        MissingError,
        NotInstalledError,
        RefinersError,
        UnknownNameError,
    )

    absent = (IncompatibleError, MissingError, NotInstalledError, UnknownNameError)
    try:
        from refiners_train.evaluate.measuring import measured

        return measured(trial)
    except RefinersError as error:
        is_absent = isinstance(error, absent)
        what = error.message.partition("\n")[0].rstrip(":.") if is_absent else str(error)
        return Answer(fault=Fault(trial.title, what, is_absent))
    except Exception as error:
        return Answer(fault=Fault(trial.title, f"{type(error).__name__}: {error}"))


def main() -> None:
    """Reads a trial from standard input and writes its answer into the folder that is named."""
    trial = msgspec.json.decode(sys.stdin.buffer.read(), type=Trial)
    path = Path(sys.argv[1], _ANSWER)
    path.write_bytes(msgspec.json.encode(answer(trial)))


if __name__ == "__main__":
    main()
