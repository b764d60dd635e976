"""Prior preservation: examples of what the base draws already, beside those of a new subject."""

from collections.abc import Hashable
from dataclasses import replace
from typing import Final

from refiners_train.data.example import Example, Grouped, Source


class WithPrior:
    """A source and another of prior examples; every batch holds as many of each.

    The prior examples keep a class, such as dogs, as the base knows it while one dog is taught
    (arXiv:2208.12242, section 3.3).

    Args:
        source: The examples that are taught.
        prior: The prior examples.
    """

    def __init__(self, source: Source, prior: Source) -> None:
        self.taught_source: Final = source
        self.prior_source: Final = prior
        self.taught: Final = range(len(source))
        """The indices of the examples that are taught."""
        self.priors: Final = range(len(source), len(source) + len(prior))
        """The indices of prior examples."""

    @property
    def fingerprint(self) -> str:
        """The fingerprints of both sources."""
        return f"{self.taught_source.fingerprint} beside {self.prior_source.fingerprint}"

    def __len__(self) -> int:
        return len(self.taught) + len(self.priors)

    def example(self, index: int, epoch: int) -> Example:
        """Returns an example; prior ones are marked."""
        if index in self.taught:
            return self.taught_source.example(index, epoch)
        return replace(self.prior_source.example(index - len(self.taught), epoch), is_prior=True)

    def group(self, index: int) -> Hashable:
        """Returns the group of an example in its own source; None if that has one size."""
        source, first = (
            (self.taught_source, 0)
            if index in self.taught
            else (self.prior_source, len(self.taught))
        )
        return source.group(index - first) if isinstance(source, Grouped) else None
