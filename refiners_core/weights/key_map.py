"""Which of our names is published as which, both ways."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Final, NamedTuple

from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.weights.prefix import Prefixes, Way


class Transform(NamedTuple):
    """How a tensor of ours differs from the one that is published; both ways keep every bit."""

    read: Callable[[Tensor], Tensor]
    """From the published tensor, or from its share, to ours."""
    write: Callable[[Tensor], Tensor]
    """From our tensor to the published one, or to its share."""
    share: int = 0
    """Which share of the published tensor's rows it is, where several of ours are published as
    one."""
    shares: int = 1
    """How many of ours are stacked there."""


def _same(x: Tensor) -> Tensor:
    return x


def _without_map(x: Tensor) -> Tensor:
    return x[:, :, 0, 0] if x.ndim == 4 else x


def _with_map(x: Tensor) -> Tensor:
    return x[:, :, None, None] if x.ndim == 2 else x


def _transposed(x: Tensor) -> Tensor:
    return x.t().contiguous()


SAME: Final = Transform(_same, _same)
LINEAR_AS_CONV: Final = Transform(_without_map, _with_map)
"""A linear layer that is published as a 1x1 convolution."""
TRANSPOSED: Final = Transform(_transposed, _transposed)
"""A matrix that is published with its rows as columns."""


def stacked(share: int, shares: int) -> Transform:
    """Returns how one of several tensors is published that are stacked along their rows."""
    return Transform(_same, _same, share, shares)


class Place(NamedTuple):
    """Where one of our tensors is published."""

    key: str
    transform: Transform


class Course(NamedTuple):
    """How far the names on the way down a tree of ours lead into a layout."""

    names: Way[str]
    transforms: Way[Transform] | None

    def on(self, word: str) -> Course:
        """Returns how far one name more leads."""
        transforms = self.transforms
        return Course(self.names.on(word), None if transforms is None else transforms.on(word))

    def place(self) -> Place | None:
        """Returns where what stands here is published; None where the layout has no name for it."""
        if (key := _translated(self.names)) is None:
            return None
        how = None if self.transforms is None else self.transforms.value
        return Place(key, how or SAME)


class KeyMap:
    """A layout: our names and the published ones, as pairs of prefixes.

    A prefix is whole words between dots; `{i}` stands for a number, the same on both sides, and
    what follows the prefix is kept. The longest prefix that fits wins.

    Args:
        names: Published prefixes by our prefixes.
        transforms: How tensors below one of our prefixes are published, where that differs.
        older: Current published prefixes by deprecated ones, which are read as well.
        ignored: Patterns of published keys that carry no weights, such as `*.position_ids`.

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
    ) -> None:
        self.names: Final = dict(names)
        self.transforms: Final = dict(transforms or {})
        self.older: Final = dict(older or {})
        self.ignored: Final = tuple(ignored)

    def under(self, ours: str, theirs: str) -> KeyMap:
        """Returns this layout for a part of a tree that stands at `ours`, published at `theirs`."""
        return KeyMap(
            {_join(ours, a): _join(theirs, b) for a, b in self.names.items()},
            transforms={_join(ours, a): how for a, how in self.transforms.items()},
            older={_join(theirs, a): _join(theirs, b) for a, b in self.older.items()},
            ignored=[_join(re.sub(r"\{\w+\}", "*", theirs), it) for it in self.ignored],
        )

    def __or__(self, other: KeyMap) -> KeyMap:
        """Returns the layout that has the rules of both; the other's count where they differ."""
        return KeyMap(
            self.names | other.names,
            transforms=self.transforms | other.transforms,
            older=self.older | other.older,
            ignored=dict.fromkeys(self.ignored + other.ignored),
        )

    def place(self, key: str) -> Place:
        """Returns where a tensor of ours is published.

        Raises:
            WeightsError: The layout has no name for it.
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
        """Returns the published name of a tensor or a layer of ours.

        Raises:
            WeightsError: The layout has no name for it.
        """
        return self.place(key).key

    def current(self, key: str) -> str:
        """Returns the published key that a deprecated one became; others are given back."""
        return (_translated(self._older.way(key)) or key) if self.older else key

    def is_ignored(self, key: str) -> bool:
        """Whether a published key carries no weights."""
        return any(fnmatchcase(key, pattern) for pattern in self.ignored)

    @cached_property
    def course(self) -> Course:
        """Where the way down a tree begins."""
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
"""The layout in which our own names are the published ones."""
