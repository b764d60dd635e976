"""Imports what plugins want imported, in a process of its own, and says how each of them fared.

Run as `python -m refiners.probe`. A plugin may raise, exit or kill the process; the one that reads
the lines knows who was the last to begin.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, NamedTuple

from refiners.build import import_reference
from refiners.discover import scan
from refiners.distribution import canonical
from refiners_core.hookspecs import GROUP

_LIMIT: Final = 120
"""Seconds that all imports together may take."""


class Task(NamedTuple):
    """One thing to import."""

    kind: str
    dist: str
    what: str


class Failure(NamedTuple):
    """What could not be imported, and why."""

    task: Task
    error: str


def probe() -> tuple[Failure, ...]:
    """Imports every factory and hook module that is installed, each where it can hurt nobody."""
    failures: list[Failure] = []
    done: set[Task] = set()
    while True:
        lines, ending = _run(done)
        begun = [Task(*line["task"]) for line in lines]
        failures += [Failure(Task(*o["task"]), o["error"]) for o in lines if o.get("error")]
        done |= {*begun}
        unfinished = begun[-1] if begun and "error" not in lines[-1] else None
        if unfinished is None:
            return tuple(failures)
        failures.append(Failure(unfinished, ending))


def main() -> None:
    """Imports what is not named on standard input; prints a line before and after each."""
    skipped = {Task(*one) for one in json.load(sys.stdin)}
    for task, load in _tasks():
        if task in skipped:
            continue
        print(json.dumps({"task": task}), flush=True)
        error = ""
        try:
            load()
        except (Exception, SystemExit) as failed:
            cause = failed.__cause__ or failed
            error = f"{type(cause).__name__}: {cause}"
        print(json.dumps({"task": task, "error": error}), flush=True)


def _tasks() -> Iterator[tuple[Task, Any]]:
    for point in entry_points(group=GROUP):
        yield Task("hooks", _owner(point), point.value), point.load
    inventory = scan()
    both: Iterable[Any] = (*inventory.adapters, *inventory.models)
    factories = {Task("factory", one.dist, one.spec.factory): None for one in both}
    for task in factories:
        yield task, lambda task=task: import_reference(task.what, task.dist)


def _owner(point: EntryPoint) -> str:
    return canonical(point.dist.name) if point.dist else "unknown"


def _run(done: set[Task]) -> tuple[list[dict[str, Any]], str]:
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "refiners.probe"],
            input=json.dumps(sorted(done)),
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            check=False,
        )
        said, ending = ended.stdout, f"ended the process with {ended.returncode}"
    except subprocess.TimeoutExpired as error:
        raw: Any = error.stdout or b""  # bytes or text, as the platform has it
        said = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
        ending = f"did not come back within {_LIMIT} seconds"
    lines: list[dict[str, Any]] = []
    for line in said.splitlines():  # plugins may print, too
        if line.startswith('{"task"'):
            lines.append(json.loads(line))
    return lines, ending


if __name__ == "__main__":
    main()
