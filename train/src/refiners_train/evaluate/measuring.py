"""Measures the adapters of a trial in this process, without and with each."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import refiners
import torch
from refiners.errors import UnsupportedError
from refiners.installed.distribution import distributions, owner_of

from refiners_core.measure import Beside, Figure, Measure, Samples, Settings
from refiners_core.picture import to_images
from refiners_train.evaluate.bar import Bar, bars, bars_together
from refiners_train.evaluate.estimate import Estimate, bootstrap, wilson
from refiners_train.evaluate.peak import peak_memory
from refiners_train.evaluate.result import Answer, Result, Row, Trial

if TYPE_CHECKING:
    from refiners_core import Adapter, Model

SHOWN: Final = 6
"""The number of samples of a trial that are kept as pictures."""


class Pair(NamedTuple):
    """The samples of a measure without its adapter and with it."""

    without: Samples | None
    with_: Samples
    seconds: float
    """The time of the samples with it."""


def measured(trial: Trial) -> Answer:
    """Measures a trial.

    Raises:
        RefinersError: A measure, the model or an adapter cannot be loaded, or does not fit.
    """
    measures = [refiners.load_measure(part.measure) for part in trial.parts]
    base = measures[0].base
    if others := {measure.base for measure in measures} - {base}:
        raise UnsupportedError(
            f"{trial.title} are measured on different bases: {base} and {', '.join(others)}.",
            hint="Measure them one by one.",
        )
    model = _model(trial, base)
    settings = Settings(trial.seed, trial.batch, trial.steps)
    with ExitStack() as stack:
        if len(measures) == 1:
            pairs, adapters = [_alone(model, measures[0], trial, settings, stack)], model.adapters
        else:
            pairs, adapters = _together(model, measures, trial, settings, stack)
        files = _files(model, adapters, measures)
    rows = [
        row
        for measure, pair, part in zip(measures, pairs, trial.parts, strict=True)
        for row in rows_of(measure, pair, trial, part.measure)
    ]
    result = Result(
        adapter=trial.title,
        rows=tuple(rows),
        seconds=round(sum(pair.seconds for pair in pairs), 2),
        memory=round(peak_memory(trial.device), 1),
        seed=trial.seed,
        count=trial.count,
        device=_device(trial.device),
        versions=_versions(files),
        files=files,
    )
    titles = _keep(pairs[0], Path(trial.pictures)) if trial.pictures else ()
    return Answer(result, titles=titles)


def estimate(figure: Figure, samples: Samples) -> Estimate:
    """Returns the value of a figure and its interval: Wilson's for a share, else a bootstrap."""
    outcomes = samples.outcomes[figure.name]
    if figure.is_share:
        return wilson(sum(map(bool, outcomes)), len(outcomes))
    return bootstrap(outcomes, figure.statistic)


def rows_of(measure: Measure, pair: Pair, trial: Trial, name: str) -> list[Row]:
    """Returns a row for each figure of a measure, with the verdict on its bars."""
    values = {f.name: estimate(f, pair.with_) for f in measure.figures}
    alone = trial.alone.get(name, {})
    rows: list[Row] = []
    for figure in measure.figures:
        value, known = values[figure.name], alone.get(figure.name)
        without = None if pair.without is None else estimate(figure, pair.without)
        verdicts: list[Bar] = (
            list(bars(figure, value, without, values))
            if len(trial.parts) == 1
            else list(bars_together(figure, value, known.value) if known else ())
        )
        rows.append(
            Row(
                adapter=trial.title,
                measure=name,
                figure=figure.name,
                base=measure.base,
                without=without,
                value=value,
                alone=known,
                n=len(pair.with_.outcomes[figure.name]),
                bar=", ".join(verdict.words for verdict in verdicts),
                is_kept=all(verdict.is_kept for verdict in verdicts) if verdicts else None,
            )
        )
    return rows


def _model(trial: Trial, base: str) -> Any:
    from refiners_core import Model

    model = refiners.load_model(trial.model or base, kind=Model, device=trial.device)
    if trial.model and model.base != base:
        raise UnsupportedError(
            f"{trial.title} is measured on {base}, but {trial.model} is a {model.base}.",
            hint=f"Leave --base out, or name a model of the base {base}.",
        )
    return model


def _alone(
    model: Any, measure: Measure, trial: Trial, settings: Settings, stack: ExitStack
) -> Pair:
    """Samples without the adapter, then with it; a measure of a model samples once."""
    [part] = trial.parts
    adapter, without = None, None
    if part.adapter:
        adapter = refiners.load_adapter(part.adapter, **measure.options)
        with adapter.on(model):
            pass  # what does not fit is refused before anything is sampled
        without = measure.run(model, None, trial.count, settings)
        stack.enter_context(adapter.on(model))
    start = perf_counter()
    with_ = measure.run(model, adapter, trial.count, settings)
    return Pair(without, with_, perf_counter() - start)


def _together(
    model: Any, measures: Sequence[Measure], trial: Trial, settings: Settings, stack: ExitStack
) -> tuple[list[Pair], Sequence[Adapter]]:
    """Samples for each measure with all adapters but its own, then with all."""
    adapters: list[Adapter] = []
    for part, measure in zip(trial.parts, measures, strict=True):
        adapter = refiners.load_adapter(part.adapter, **measure.options)
        adapters.append(stack.enter_context(adapter.on(model)))
    others = [Beside(m.condition(trial.count), m.scale_together) for m in measures]
    pairs: list[Pair] = []
    for i, measure in enumerate(measures):
        joint = replace(
            settings,
            scale=measure.scale_together,
            beside={a: b for j, (a, b) in enumerate(zip(adapters, others, strict=True)) if j != i},
        )
        without = measure.run(model, None, trial.count, joint)
        start = perf_counter()
        with_ = measure.run(model, adapters[i], trial.count, joint)
        pairs.append(Pair(without, with_, perf_counter() - start))
    return pairs, adapters


def _files(
    model: Model, adapters: Sequence[Any], measures: Sequence[Measure]
) -> dict[str, dict[str, str]]:
    """Returns the sha256 of the files of the model, the adapters and the readers."""
    files: dict[str, dict[str, str]] = {}
    for thing in (model, *adapters):
        if thing.origin is not None:
            origin = thing.origin(thing)
            files[origin.file or origin.id] = dict(sorted(origin.files.items()))
    for measure in measures:
        for path in measure.files:
            package = type(measure).__module__.partition(".")[0]
            place = path.as_posix().rpartition(f"/{package}/")[2]
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            files.setdefault(f"pkg:{package}", {})[place] = digest
    return files


def _versions(files: Mapping[str, Any]) -> dict[str, str]:
    """Returns the versions of torch, Python, and the packages of the files."""
    owners = [owner for dist in distributions() if (owner := owner_of(dist)) is not None]
    dists = {name.partition(":")[0] for name in files} | {"refiners-core", "refiners-train"}
    known = {owner.name: owner.version for owner in owners if owner.name in dists}
    return dict(sorted(known.items())) | {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def _device(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return "CPU" if device == "cpu" else device


def _keep(pair: Pair, folder: Path) -> tuple[str, ...]:
    """Writes the first pictures as `without-0.png`, `with-0.png` and so on; returns prompts."""
    for name, samples in (("without", pair.without), ("with", pair.with_)):
        if samples is not None and samples.pictures is not None:
            for i, image in enumerate(to_images(samples.pictures[:SHOWN].float().cpu())):
                image.save(folder / f"{name}-{i}.png")
    return tuple(pair.with_.titles[:SHOWN]) if pair.with_.pictures is not None else ()
