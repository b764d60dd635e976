"""A measurement and its results: values that travel as JSON."""

from __future__ import annotations

import msgspec

from refiners_train.evaluate.estimate import Estimate


class Part(msgspec.Struct, frozen=True):
    """An adapter and the measure of it."""

    measure: str
    """The name of the measure."""
    adapter: str = ""
    """The name of the adapter, or its file; empty for a measure of the model itself."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement, in a process of its own."""

    parts: tuple[Part, ...]
    """The adapters that are worn together; mostly one."""
    model: str = ""
    """The model: a name, a folder or a file; by default the base of the measure."""
    count: int = 96
    seed: int = 0
    batch: int = 16
    steps: int | None = None
    device: str = "cpu"
    alone: dict[str, dict[str, Estimate]] = {}
    """The values of each measure's figures with its adapter alone, if several are worn."""
    pictures: str = ""
    """The folder for a few pictures; empty if none are kept."""

    @property
    def title(self) -> str:
        """The adapters, or the name of the measure of a model."""
        return "+".join(part.adapter or part.measure for part in self.parts)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The values of one figure."""

    adapter: str
    """The adapters that are worn, joined by `+`; the name of the measure for a model's."""
    measure: str
    figure: str
    base: str
    without: Estimate | None
    """Without the adapter; beside others, with them alone."""
    value: Estimate
    """With the adapter."""
    alone: Estimate | None = None
    """With the adapter alone, if others are worn as well."""
    n: int
    bar: str = ""
    is_kept: bool | None = None
    """Whether every bar is kept; None if there is none."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a trial, and all that makes them what they are."""

    adapter: str
    rows: tuple[Row, ...]
    seconds: float
    """The time of sampling and reading with the adapter, of all measures of the trial."""
    memory: float
    """The peak of the process in MB; on an accelerator, that of its tensors."""
    seed: int
    count: int
    device: str
    versions: dict[str, str]
    """The version of each package."""
    files: dict[str, dict[str, str]]
    """The sha256 of each file, by the model, adapter or package and its role or path."""


class Fault(msgspec.Struct, frozen=True):
    """Why a trial has no result."""

    adapter: str
    what: str
    is_absent: bool = False
    """Whether the adapter is not installed, or not for the base, so that nothing is wrong."""


class Answer(msgspec.Struct, frozen=True):
    """The answer of the process of a trial."""

    result: Result | None = None
    fault: Fault | None = None
    titles: tuple[str, ...] = ()
    """The prompts of the pictures that it kept."""
