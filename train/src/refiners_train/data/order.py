"""The order of examples: a function of the seed and the epoch."""

from collections.abc import Hashable, Iterator, Sequence, Sized

from refiners_train.data.chance import chance
from refiners_train.data.data_error import DataError
from refiners_train.data.example import Grouped
from refiners_train.data.prior import WithPrior


def batches(source: Sized, size: int, *, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """Returns the batches of an epoch as indices of examples.

    Every example is in one batch. The examples of a batch are of one group; the last batch of each
    group may be short. With prior preservation, every batch holds as many prior examples as others,
    after these.

    Args:
        source: The source of the examples.
        size: The number of examples of a batch, prior ones not counted.
        seed: The seed of the order.
        epoch: The number of the epoch from 0.

    Raises:
        DataError: The source has no examples, or no prior ones of a group.

    Example:
        >>> [len(batch) for batch in batches(range(10), 4, seed=0, epoch=0)]
        [4, 4, 2]
    """
    if not len(source):
        raise DataError("the source has no examples.", hint="Look at `source` in [data].")
    random = chance("order", seed, epoch)
    taught = source.taught if isinstance(source, WithPrior) else range(len(source))
    chunks: list[tuple[int, ...]] = []
    for indices in _groups(source, taught).values():
        random.shuffle(indices)
        chunks += [tuple(indices[start : start + size]) for start in range(0, len(indices), size)]
    random.shuffle(chunks)
    if not isinstance(source, WithPrior):
        return chunks
    priors = _groups(source, source.priors)
    for indices in priors.values():
        random.shuffle(indices)
    taken = {group: _cycle(indices) for group, indices in priors.items()}
    return [(*chunk, *_priors_for(source, chunk, taken)) for chunk in chunks]


def length(source: Sized, size: int) -> int:
    """Returns the number of batches of an epoch: for each group, its examples divided by the size,
    rounded up.

    Args:
        source: The source of the examples.
        size: The number of examples of a batch.
    """
    taught = source.taught if isinstance(source, WithPrior) else range(len(source))
    return sum(-(-len(indices) // size) for indices in _groups(source, taught).values())


def _groups(source: Sized, indices: Sequence[int]) -> dict[Hashable, list[int]]:
    if not isinstance(source, Grouped):
        return {None: [*indices]}
    groups: dict[Hashable, list[int]] = {}
    for index in indices:
        groups.setdefault(source.group(index), []).append(index)
    return groups


def _cycle(indices: list[int]) -> Iterator[int]:
    while True:
        yield from indices


def _priors_for(
    source: WithPrior, chunk: tuple[int, ...], taken: dict[Hashable, Iterator[int]]
) -> list[int]:
    group = source.group(chunk[0])
    if group not in taken:
        raise DataError(
            f"no prior picture has the size {group} of other pictures.",
            hint="Give both sources one size and no buckets, or add prior pictures of this shape.",
        )
    return [next(taken[group]) for _ in chunk]
