"""A part of a source, such as the examples that are held out."""

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any, Final

from refiners_train.data.batch import Batch, Batched
from refiners_train.data.data_error import DataError
from refiners_train.data.example import Grouped
from refiners_train.data.prior import WithPrior


class Part:
    """Some consecutive examples of a source; it groups and batches as the source does.

    Args:
        source: The source.
        indices: The positions of the examples in the source.
    """

    def __init__(self, source: Any, indices: range) -> None:
        self.source: Final = source
        self.indices: Final = indices
        # Attributes of the instance, so that a part has them only if its source does.
        if isinstance(source, Grouped):
            self.group = partial(_group, source, indices)
        if isinstance(source, Batched):
            self.batch = partial(_batch, source, indices)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the source, and the positions."""
        return f"{self.source.fingerprint}[{self.indices.start}:{self.indices.stop}]"

    def __len__(self) -> int:
        return len(self.indices)

    def example(self, index: int, epoch: int) -> Any:
        """Returns an example."""
        return self.source.example(self.indices[index], epoch)


def parted(source: Any, held_out: int) -> tuple[Any, Any]:
    """Returns the examples that are trained on, and the last ones, which are held out.

    Args:
        source: The source; of one with prior examples, those of the subject are held out.
        held_out: The number of examples that are held out.

    Raises:
        DataError: No example would be left.
    """
    taught = source.taught_source if isinstance(source, WithPrior) else source
    count = len(taught) - held_out
    if count < 1:
        raise DataError(
            f"the source has {len(taught)} examples, of which {held_out} are held out.",
            hint="Write a smaller held-out in [data].",
        )
    if not held_out:
        return source, None
    rest, last = Part(taught, range(count)), Part(taught, range(count, len(taught)))
    return (WithPrior(rest, source.prior_source) if isinstance(source, WithPrior) else rest), last


def _group(source: Grouped, indices: range, index: int) -> Hashable:
    return source.group(indices[index])


def _batch(source: Batched, indices: range, positions: Sequence[int], epoch: int) -> Batch:
    return source.batch([indices[position] for position in positions], epoch)
