"""Runs the trials of a plan, and gathers their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from refiners_train.evaluate.plan import Plan
from refiners_train.evaluate.result import Answer, Fault, Part, Result, Trial


class Evaluation(NamedTuple):
    """The results of a plan, and the trials that have none."""

    results: tuple[Result, ...]
    faults: tuple[Fault, ...]
    pictures: dict[str, tuple[Path, tuple[str, ...]]]
    """The folder of each trial's pictures, and their prompts."""

    @property
    def is_kept(self) -> bool:
        """Whether every bar is kept, and nothing failed that is there."""
        rows = (row for result in self.results for row in result.rows)
        is_whole = all(fault.is_absent for fault in self.faults)
        return is_whole and all(row.is_kept is not False for row in rows)


def evaluated(
    plan: Plan,
    settings: Trial,
    run: Callable[[Trial], Answer],
    folder: Path | None = None,
    jobs: int = 1,
) -> Evaluation:
    """Measures every adapter of a plan alone, then the groups that are worn together.

    Args:
        plan: The plan.
        settings: A trial whose parts are replaced.
        run: Measures a trial.
        folder: The folder for pictures; None keeps none.
        jobs: The number of trials at a time.
    """
    results: list[Result] = []
    faults = [*plan.faults]
    pictures: dict[str, tuple[Path, tuple[str, ...]]] = {}
    total = len(plan.alone) + len(plan.together)
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=total, disable=total < 2) as bar:
        for groups in (plan.alone, plan.together):  # the second needs the values of the first
            places = [folder and folder / group_name(group) for group in groups]
            pairs = zip(groups, places, strict=True)
            trials = [_trial(settings, group, results, place) for group, place in pairs]
            for trial, answer in zip(trials, pool.map(run, trials), strict=True):
                bar.update()
                if answer.result is not None:
                    results.append(answer.result)
                if answer.fault is not None:
                    faults.append(answer.fault)
                if trial.pictures and answer.titles:
                    pictures[trial.title] = (Path(trial.pictures), answer.titles)
    return Evaluation(tuple(results), tuple(faults), pictures)


def group_name(group: Sequence[Part]) -> str:
    """Returns a name for the folder of a group's pictures."""
    return sha256(repr(group).encode()).hexdigest()[:16]


def _trial(
    settings: Trial, group: Sequence[Part], results: Sequence[Result], folder: Path | None
) -> Trial:
    """Returns the trial of a group, with the values of its members alone."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    alone = {
        part.measure: {
            row.figure: row.value for r in results if r.adapter == name for row in r.rows
        }
        for part in (group if len(group) > 1 else ())
        for name in (part.adapter or part.measure,)
    }
    return Trial(
        parts=tuple(group),
        model=settings.model,
        count=settings.count,
        seed=settings.seed,
        batch=settings.batch,
        steps=settings.steps,
        device=settings.device,
        alone=alone,
        pictures="" if folder is None else str(folder),
    )
