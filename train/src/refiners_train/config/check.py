"""Checks what a configuration names, before anything heavy is loaded: all faults at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from refiners.choose.compatibility import ModelFacts, choose
from refiners.choose.lookup import find_adapter, find_model
from refiners.choose.variant import verdicts
from refiners.errors import RefinersError
from refiners.installed.factory import check_adapter_options
from refiners.installed.inventory import Installed
from refiners.manifest.explain import ManifestFault
from refiners.manifest.schema import AdapterSpec, ModelSpec
from refiners.sources.local import is_local
from refiners.sources.repository import PREFIX, parse_address

from refiners_train.config.schema import Config, Distillation
from refiners_train.data.source_check import source_faults

EXTRAS: Final = {"tensorboard": "tensorboard"}
"""The extra of this package that installs each optional library."""


def faults_of(config: Config) -> list[ManifestFault]:
    """Returns the faults of a configuration: unknown names, options, files and libraries, and
    values that contradict each other.

    The code of the adapter and of the source is imported; no weights are read.
    """
    return [
        *_output(config),
        *_names(config),
        *_source(config),
        *_contradictions(config),
        *_libraries(config),
    ]


def check_pair(adapter: str, base: str) -> None:
    """Checks that an adapter and a base are installed, and that the one suits the other.

    Raises:
        RefinersError: The adapter or the base is not installed, or the adapter does not suit it.
    """
    plugin = find_adapter(adapter)
    if not is_local(base) and not base.startswith(PREFIX):
        _check_suits(plugin, find_model(base))


def _check_suits(adapter: Installed[AdapterSpec], model: Installed[ModelSpec]) -> None:
    facts = ModelFacts(model.name, model.spec.base or model.name, model.spec.facts)
    choose(adapter, facts, verdicts(adapter, facts))


def _output(config: Config) -> Iterator[ManifestFault]:
    folder = Path(config.output)
    if folder.exists() and not folder.is_dir():
        yield ManifestFault(("output",), f"{folder} is not a folder", "Name a folder.")
    above = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if above is not None and above.is_dir() and not os.access(above, os.W_OK):
        yield ManifestFault(("output",), f"{above} cannot be written", "Name another folder.")


def _names(config: Config) -> Iterator[ManifestFault]:
    model: Installed[ModelSpec] | None = None
    adapter: Installed[AdapterSpec] | None = None
    what, place = config.base.model, ("base", "model")
    try:
        if what.startswith(PREFIX):
            parse_address(what)
        elif is_local(what):
            if not Path(what).expanduser().exists():
                yield ManifestFault(place, f"the file or folder {what!r} does not exist")
        else:
            model = find_model(what)
    except RefinersError as error:
        yield _refusal(place, error)
    try:
        adapter = find_adapter(config.adapter.name)
    except RefinersError as error:
        yield _refusal(("adapter", "name"), error)
    if adapter is None:
        return
    try:
        check_adapter_options(adapter, config.adapter.options)
    except RefinersError as error:
        yield _refusal(("adapter", "options"), error)
    if model is not None:
        try:
            _check_suits(adapter, model)
        except RefinersError as error:
            yield _refusal(("adapter", "name"), error)


def _source(config: Config) -> Iterator[ManifestFault]:
    kind = "texts" if config.train.objective == "causal" else "pictures"
    for fault in source_faults(config.data.source, config.data.options, kind):
        yield ManifestFault(("data", "source"), fault)


def _contradictions(config: Config) -> Iterator[ManifestFault]:
    train = config.train
    is_diffusion = train.objective == "diffusion"
    if train.warm_up > train.steps:
        what = f"{train.warm_up} steps of warm-up are more than the {train.steps} steps of the run"
        yield ManifestFault(("train", "warm-up"), what)
    if train.accumulation > train.batch:
        what = f"a batch of {train.batch} has fewer examples than {train.accumulation} parts"
        yield ManifestFault(("train", "accumulation"), what)
    if train.other_learning_rate is not None and train.optimiser != "muon":
        what = f"{train.optimiser} has one learning rate"
        hint = 'Leave it out, or write optimiser = "muon".'
        yield ManifestFault(("train", "other-learning-rate"), what, hint)
    for key, is_set in (
        ("snr-gamma", train.snr_gamma is not None),
        ("timesteps", train.timesteps != "uniform"),
    ):
        if is_set and not is_diffusion:
            what = f"the objective {train.objective} does not read it"
            yield ManifestFault(("train", key), what, "Leave it out.")
    low, high = train.distillation.guidance
    if low > high:
        what = f"the lowest scale, {low:g}, is above the highest, {high:g}"
        yield ManifestFault(("train", "distillation", "guidance"), what)
    if train.distillation != Distillation() and train.objective != "consistency":
        what = f"the objective {train.objective} has no teacher"
        hint = 'Leave it out, or write objective = "consistency".'
        yield ManifestFault(("train", "distillation"), what, hint)
    if config.log.samples is not None and train.objective == "causal":
        yield ManifestFault(("log", "samples"), "a language model draws no pictures")


def _libraries(config: Config) -> Iterator[ManifestFault]:
    wanted = {"tensorboard"} if config.log.tensorboard else set[str]()
    for library in sorted(wanted):
        if find_spec(library) is None:
            hint = f'pip install "refiners-train[{EXTRAS[library]}]"'
            yield ManifestFault(("log", library), f"{library} is not installed", f"Try {hint}.")


def _refusal(place: tuple[str, ...], error: RefinersError) -> ManifestFault:
    return ManifestFault(place, str(error.message).rstrip("."), error.hint)
