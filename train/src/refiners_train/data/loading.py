"""Loads the batches of a run in their order, in this process or in workers."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, Dataset

from refiners_train.data.batch import Batch, Batched, stacked
from refiners_train.data.order import batches, length


class Place(NamedTuple):
    """The batch of one step: its epoch, and the rows that this process trains on."""

    epoch: int
    indices: tuple[int, ...]
    """The positions in the source of the rows of this process."""
    start: int
    """The position of its first row in the batch of all processes."""
    total: int
    """The number of rows of all processes."""


class Rows(Dataset[tuple[Place, Any]]):
    """Makes the rows of a place, for a `DataLoader`."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __getitem__(self, place: Place) -> tuple[Place, Any]:
        return place, rows_of(self.source, place.indices or (0,), place.epoch)


def rows_of(source: Any, indices: Sequence[int], epoch: int) -> Any:
    """Returns the batch of some examples; a source may make its own kind of batches."""
    if isinstance(source, Batched):
        return source.batch(indices, epoch)
    return stacked([source.example(index, epoch) for index in indices])


def places(
    source: Any,
    size: int,
    *,
    seed: int,
    first: int = 0,
    process: int = 0,
    processes: int = 1,
) -> Iterator[Place]:
    """Yields the places of the batches from `first` on, epoch after epoch.

    The order is a function of the seed and the epoch, so that a resumed run goes on inside an
    epoch, and each process has its share of the same batches.

    Args:
        source: The source of the examples.
        size: The number of examples of a step.
        seed: The seed of the order.
        first: The number of the first batch, from 0.
        process: The number of this process.
        processes: The number of processes.
    """
    epoch, skipped = divmod(first, length(source, size))
    while True:
        for batch in batches(source, size, seed=seed, epoch=epoch)[skipped:]:
            start, end = share(len(batch), process, processes)
            yield Place(epoch, tuple(batch[start:end]), start, len(batch))
        epoch, skipped = epoch + 1, 0


def share(rows: int, process: int, processes: int) -> tuple[int, int]:
    """Returns the first and the end of the rows of a process; they are spread evenly.

    Example:
        >>> [share(5, process, 2) for process in (0, 1)]
        [(0, 3), (3, 5)]
    """
    fewer, more = divmod(rows, processes)
    start = process * fewer + min(process, more)
    return start, start + fewer + (process < more)


def loaded(source: Any, order: Iterator[Place], workers: int) -> Iterator[tuple[Place, Batch]]:
    """Returns the batches of places, prepared by workers if there are any."""
    options: dict[str, Any] = {"num_workers": workers, "collate_fn": _same}
    if workers:
        options |= {"prefetch_factor": 4, "persistent_workers": False}
    return iter(DataLoader(Rows(source), batch_size=None, sampler=order, **options))  # pyright: ignore


def _same(item: Any) -> Any:
    return item
