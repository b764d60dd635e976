"""Measures: the effect of an adapter, or the skill of a model, as numbers over held-out samples.

A package declares a measure in the entry-point group `refiners.measures`, as `name =
"module:object"`. The object is a function or class that takes no arguments and returns a `Measure`.
The name is usually that of the adapter, so that a measure is listed without importing its package.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from refiners_core.surgery.adapter import Adapter

__all__ = ["GROUP", "Beside", "Figure", "Measure", "Samples", "Settings"]

GROUP: Final = "refiners.measures"
"""The entry-point group of measures."""

Outcome: TypeAlias = "float | Sequence[float]"
"""The result of one sample: a number, or several that a statistic takes together."""


def mean(outcomes: Sequence[float]) -> float:
    """Returns the mean of numbers."""
    return float(sum(outcomes)) / len(outcomes)


@dataclass(frozen=True)
class Figure:
    """A number of a measure, and the bars that it must keep; a bar that is None is not set.

    With an adapter, `least` and `most` bound the value with it, and the others the value without
    it or the difference. Without one, `least` and `most` bound the value of the model.
    """

    name: str
    """Which of a sample's outcomes it is, in a few words: `edges, F1`."""
    is_share: bool = True
    """Whether an outcome is 1 or 0, and the value a share of samples. Its interval is Wilson's;
    that of other figures is a bootstrap."""
    least: float | None = None
    """The smallest value with the adapter."""
    most: float | None = None
    """The greatest value with the adapter."""
    most_without: float | None = None
    """The greatest value without the adapter."""
    least_without: float | None = None
    """The smallest value without the adapter."""
    loss: float | None = None
    """The most by which the value with the adapter may be below that without."""
    share_of: tuple[str, float] | None = None
    """Another figure, and the smallest share of its value with the adapter."""
    together: float | None = None
    """The smallest share of the value of the adapter alone that is left while others are worn;
    None where others may change it by their nature."""
    statistic: Callable[[Sequence[Any]], float] = mean
    """Makes the value from the outcomes of all samples."""


@dataclass(frozen=True)
class Samples:
    """The samples of one run: the outcome of each, and what they show."""

    outcomes: Mapping[str, Sequence[Outcome]]
    """The outcomes of each figure by its name, in the order of the samples."""
    titles: Sequence[str] = ()
    """The prompt of each sample."""
    pictures: Float[Tensor, "samples 3 height width"] | None = None
    """The generated pictures in 0...1, if the samples are pictures."""


@dataclass(frozen=True)
class Beside:
    """The condition and the strength of another adapter while one is measured."""

    rows: Any = None
    """Its condition, with a row for each sample; None if it takes none."""
    scale: float = 1.0
    """Its strength."""


@dataclass(frozen=True)
class Settings:
    """The settings of a run of a measure."""

    seed: int = 0
    """The seed of the first sample; the i-th has this seed plus i."""
    batch: int = 16
    """The number of samples that are generated at once, which does not change them."""
    steps: int | None = None
    """The number of denoising steps; by default as many as the measure states."""
    scale: float = 1.0
    """The factor of the adapter's strength."""
    beside: Mapping[Adapter, Beside] = field(default_factory=dict["Adapter", Beside])
    """The other adapters that the model wears and uses."""


class Measure(ABC):
    """States the effect of an adapter, or the skill of a model, over held-out samples.

    Without the adapter, a measure samples the same prompts with the same seeds.
    """

    base: str
    """The base of the models that are measured, such as `playground`."""
    adapter: str = ""
    """The name of the adapter; empty if the model itself is measured."""
    options: Mapping[str, Any] = {}
    """The constructor arguments with which the adapter is loaded."""
    summary: str = ""
    """One line: the prompts, and who reads the results."""
    scale_together: float = 1.0
    """The factor of the adapter's strength wherever it is worn together with others."""
    figures: Sequence[Figure]
    """The figures, the most telling one first."""
    files: Sequence[Path] = ()
    """The files of networks that read the samples; their hashes are recorded with the results."""

    @abstractmethod
    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        """Generates samples and reads each.

        Args:
            model: The model.
            adapter: The adapter, which the model wears; None to sample without it. Worn adapters
                that are neither this one nor in `settings.beside` are left out.
            count: The number of samples.
            settings: The settings of the run.
        """

    def condition(self, count: int) -> Any:
        """Returns the rows of the adapter's condition while it is worn beside a measured adapter.

        Args:
            count: The number of samples, whose order is that of `run`.
        """
        return None

    def values(
        self, model: Any, adapter: Adapter | None, count: int, settings: Settings | None = None
    ) -> dict[str, float]:
        """Returns the value of each figure of a run, by its name."""
        samples = self.run(model, adapter, count, settings or Settings())
        return {f.name: f.statistic(samples.outcomes[f.name]) for f in self.figures}
