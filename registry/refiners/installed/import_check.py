"""Imports factories, commands and hook modules in a separate process, and reports failures.

The process runs `python -m refiners.installed.import_check`. A plugin may raise, exit, kill the
process or print anything: results go to a file that only the two processes know, so that the parent
knows which import was the last to begin.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Final, NamedTuple

from refiners.host.text import reason_of
from refiners.installed.command import package_commands
from refiners.installed.distribution import canonical
from refiners.installed.factory import import_reference
from refiners.installed.inventory import scan
from refiners.installed.unreadable import let_torch_load
from refiners_core.hookspecs import announced, register

_LIMIT: Final = 120
"""The seconds that all imports together may take."""


class Task(NamedTuple):
    """One factory, command or hook module to import."""

    kind: str
    dist: str
    what: str


class Failure(NamedTuple):
    """An import that failed, and its error."""

    task: Task
    error: str


def probe() -> tuple[Failure, ...]:
    """Imports all installed factories and hook modules in separate processes; returns failures."""
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
    """Imports everything but the tasks on standard input; writes a line before and after each."""
    request = json.load(sys.stdin)
    let_torch_load()
    skipped = {Task(*task) for task in request["skipped"]}
    tasks = [task for task in _tasks() if task[0] not in skipped]  # before any plugin code runs
    with open(request["report"], "a", encoding="utf-8") as report:
        for task, load in tasks:
            report.write(f"{json.dumps({'task': task})}\n")
            report.flush()
            error = ""
            try:
                load()
            except BaseException as failed:
                cause = failed.__cause__ or failed
                error = f"{type(cause).__name__}: {reason_of(cause)}"
            report.write(f"{json.dumps({'task': task, 'error': error})}\n")
            report.flush()


def _tasks() -> Iterator[tuple[Task, Any]]:
    for point in announced():
        yield Task("hooks", _owner(point), point.value), partial(_load_hooks, point)
    plugins = scan().plugins
    factories = {Task("factory", plugin.dist, plugin.spec.factory): None for plugin in plugins}
    commands = (Task("command", c.dist, c.reference) for c in package_commands(()).commands)
    for task in (*factories, *commands):
        yield task, lambda task=task: import_reference(task.what, task.dist)


def _load_hooks(point: EntryPoint) -> None:
    """Imports a hook module, and compares its hooks with their specifications."""
    register(point.load(), point.value, _owner(point))


def _owner(point: EntryPoint) -> str:
    return canonical(point.dist.name) if point.dist else "unknown"


def _run(done: set[Task]) -> tuple[list[dict[str, Any]], str]:
    with tempfile.TemporaryDirectory(prefix="refiners-probe-") as folder:
        report = Path(folder) / secrets.token_hex(8)
        report.touch()
        try:
            process = subprocess.run(
                [sys.executable, "-m", "refiners.installed.import_check"],
                input=json.dumps({"report": str(report), "skipped": sorted(done)}),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                timeout=_LIMIT,
                check=False,
            )
            ending = f"ended the process with {process.returncode}"
        except subprocess.TimeoutExpired:
            ending = f"did not finish within {_LIMIT} seconds"
        lines = report.read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")], ending


if __name__ == "__main__":
    main()
