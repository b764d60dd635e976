"""Key maps: the translation between our names of tensors and published ones, both ways."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from math import gcd
from typing import Final, NamedTuple

import torch
from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.weights.prefix import Prefixes, Way


class Transform(NamedTuple):
    """The conversion between a published tensor and ours; both directions are lossless."""

    read: Callable[[Tensor], Tensor]
    """Converts the published tensor, or its share, to ours."""
    write: Callable[[Tensor], Tensor]
    """Converts our tensor to the published one, or to its share."""
    share: int = 0
    """The index of our tensor among those that are published as one."""
    shares: int = 1
    """The number of our tensors in the published one."""
    sizes: tuple[int, ...] = ()
    """The sizes of the shares, in any unit; equal by default."""
    dim: int = 0
    """The dimension along which the published tensor is divided."""

    def part(self, tensor: Tensor) -> Tensor | None:
        """Returns the share of a published tensor, before `read`; None if it cannot be divided."""
        if self.shares == 1:
            return tensor
        sizes = self._sizes
        length, rest = divmod(tensor.shape[self.dim], sum(sizes)) if tensor.ndim else (0, 1)
        if rest:
            return None
        begin = length * sum(sizes[: self.share])
        return tensor.narrow(self.dim, begin, length * sizes[self.share])

    def grown(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape of the published tensor, given that of the share after `write`."""
        grown = list(shape)
        if self.shares > 1 and grown:
            sizes = self._sizes
            grown[self.dim] = -(-grown[self.dim] * sum(sizes) // sizes[self.share])
        return tuple(grown)

    @property
    def _sizes(self) -> tuple[int, ...]:
        """The sizes of the shares in the largest common unit."""
        sizes = self.sizes or (1,) * self.shares
        return tuple(size // gcd(*sizes) for size in sizes)


def _same(x: Tensor) -> Tensor:
    return x


def _without_map(x: Tensor) -> Tensor:
    return x[:, :, 0, 0] if x.ndim == 4 else x


def _with_map(x: Tensor) -> Tensor:
    return x[:, :, None, None] if x.ndim == 2 else x


def _transposed(x: Tensor) -> Tensor:
    return x.t().contiguous()


SAME: Final = Transform(_same, _same)
"""The transform of a tensor that is published as it is."""
LINEAR_AS_CONV: Final = Transform(_without_map, _with_map)
"""The transform of a linear layer that is published as a 1x1 convolution."""
TRANSPOSED: Final = Transform(_transposed, _transposed)
"""The transform of a matrix that is published transposed."""
TURNED: Final = Transform(torch.t, torch.t)
"""The same without a copy: the matrix stays in a mapped file, and keeps the strides of the other
direction. A vector passes unchanged."""


def stacked(
    share: int,
    shares: int,
    *,
    sizes: Sequence[int] = (),
    dim: int = 0,
    transform: Transform = SAME,
) -> Transform:
    """Returns the transform of one of several tensors that are published as one.

    Args:
        share: The index of the tensor, from 0.
        shares: The number of stacked tensors.
        sizes: The sizes of all shares, in any unit; equal by default.
        dim: The dimension of the published tensor along which they are stacked: 0 for the rows, -1
            for the columns of a matrix and for a bias.
        transform: The conversion of each share.

    Raises:
        WeightsError: `share` is not one of `shares`, or `sizes` does not have a positive size for
            each.

    Example:
        >>> stacked(0, 3, sizes=(4, 1, 1)).grown((32, 8))
        (48, 8)
    """
    if not 0 <= share < shares or (sizes and (len(sizes) != shares or min(sizes) < 1)):
        raise WeightsError(
            f"share {share} of {shares} tensors with the sizes {list(sizes)} is not possible.",
            hint="Shares count from 0, and sizes have one number above 0 for each.",
        )
    return Transform(transform.read, transform.write, share, shares, tuple(sizes), dim)


class Place(NamedTuple):
    """The published key of one of our tensors, and its transform."""

    key: str
    transform: Transform


class Course(NamedTuple):
    """The position in a layout after following the names on a path down a tree."""

    names: Way[str]
    transforms: Way[Transform] | None

    def on(self, word: str) -> Course:
        """Returns the position after one more name."""
        transforms = self.transforms
        return Course(self.names.on(word), None if transforms is None else transforms.on(word))

    def place(self) -> Place | None:
        """Returns the place of the tensor at this position; None if the layout does not name it."""
        if (key := _translated(self.names)) is None:
            return None
        how = None if self.transforms is None else self.transforms.value
        return Place(key, how or SAME)


class KeyMap:
    """A layout: pairs of our name prefixes and the published ones.

    A prefix consists of whole words between dots; `{i}` matches a number, the same on both sides,
    and the rest of a name is kept. The longest matching prefix wins.

    Args:
        names: The published prefixes, by our prefixes.
        transforms: The transforms of tensors below one of our prefixes.
        older: The current published prefixes, by deprecated ones, which are read as well.
        ignored: Patterns of published keys without weights, such as `*.position_ids`.
        layers: The published names of layers whose weight is published as that of another layer, by
            our names: a head that shares the weight of an embedding is still a layer.

    Example:
        >>> layout = KeyMap({"down.{i}.conv_1": "down_blocks.{i}.conv1"})
        >>> layout.published("down.3.conv_1.weight")
        'down_blocks.3.conv1.weight'
    """

    def __init__(
        self,
        names: Mapping[str, str],
        *,
        transforms: Mapping[str, Transform] | None = None,
        older: Mapping[str, str] | None = None,
        ignored: Iterable[str] = (),
        layers: Mapping[str, str] | None = None,
    ) -> None:
        self.names: Final = dict(names)
        self.transforms: Final = dict(transforms or {})
        self.older: Final = dict(older or {})
        self.ignored: Final = tuple(ignored)
        self.layers: Final = dict(layers or {})

    def under(self, ours: str, theirs: str) -> KeyMap:
        """Returns this layout for a part of a tree at the path `ours`, published at `theirs`."""
        return KeyMap(
            {_join(ours, a): _join(theirs, b) for a, b in self.names.items()},
            transforms={_join(ours, a): how for a, how in self.transforms.items()},
            older={_join(theirs, a): _join(theirs, b) for a, b in self.older.items()},
            ignored=[_join(re.sub(r"\{\w+\}", "*", theirs), pattern) for pattern in self.ignored],
            layers={_join(ours, a): _join(theirs, b) for a, b in self.layers.items()},
        )

    def __or__(self, other: KeyMap) -> KeyMap:
        """Returns a layout with the rules of both; those of `other` win."""
        return KeyMap(
            self.names | other.names,
            transforms=self.transforms | other.transforms,
            older=self.older | other.older,
            ignored=dict.fromkeys(self.ignored + other.ignored),
            layers=self.layers | other.layers,
        )

    def place(self, key: str) -> Place:
        """Returns the published place of one of our tensors.

        Raises:
            WeightsError: The layout does not name the tensor.
        """
        course = self.course
        for word in key.split("."):
            course = course.on(word)
        place = course.place()
        if place is None:
            raise WeightsError(
                f"the layout has no published name for {key!r}.",
                hint="Add its prefix to the KeyMap.",
            )
        return place

    def published(self, key: str) -> str:
        """Returns the published name of one of our tensors or layers.

        Raises:
            WeightsError: The layout does not name it.
        """
        return self.place(key).key

    def current(self, key: str) -> str:
        """Returns the current published key for a deprecated one; any other key unchanged."""
        return (_translated(self._older.way(key)) or key) if self.older else key

    def is_ignored(self, key: str) -> bool:
        """Whether a published key is one of those without weights."""
        return any(fnmatchcase(key, pattern) for pattern in self.ignored)

    @cached_property
    def course(self) -> Course:
        """The position at the root of a tree."""
        return Course(
            Prefixes(self.names).start,
            Prefixes(self.transforms).start if self.transforms else None,
        )

    @cached_property
    def _older(self) -> Prefixes[str]:
        return Prefixes(self.older)


def _translated(way: Way[str]) -> str | None:
    return None if way.value is None else _join(way.value.format(**way.numbers), way.rest)


def _join(*parts: str) -> str:
    return ".".join(filter(None, parts))


AS_IS: Final = KeyMap({"": ""})
"""The layout in which our names are the published ones."""
