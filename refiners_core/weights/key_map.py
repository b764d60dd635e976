"""Which of our names is published as which, both ways."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Final, Generic, NamedTuple, TypeVar

from torch import Tensor

from refiners_core.errors import WeightsError

T = TypeVar("T")


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
        theirs = self._names.translate(key)
        if theirs is None:
            raise WeightsError(
                f"the layout has no published name for {key!r}.",
                hint="Add its prefix to the KeyMap.",
            )
        return Place(theirs, self._transforms.find(key, SAME) if self.transforms else SAME)

    def published(self, key: str) -> str:
        """Returns the published name of a tensor or a layer of ours.

        Raises:
            WeightsError: The layout has no name for it.
        """
        return self.place(key).key

    def current(self, key: str) -> str:
        """Returns the published key that a deprecated one became; others are given back."""
        return (self._older.translate(key) or key) if self.older else key

    def is_ignored(self, key: str) -> bool:
        """Whether a published key carries no weights."""
        return any(fnmatchcase(key, pattern) for pattern in self.ignored)

    @cached_property
    def _names(self) -> _Prefixes[str]:
        return _Prefixes(self.names)

    @cached_property
    def _older(self) -> _Prefixes[str]:
        return _Prefixes(self.older)

    @cached_property
    def _transforms(self) -> _Prefixes[Transform]:
        return _Prefixes(self.transforms)


class _Node(Generic[T]):
    """A word of some prefixes: what may follow it, and what belongs to the prefix that it ends."""

    def __init__(self) -> None:
        self.words: dict[str, _Node[T]] = {}
        self.patterns: dict[str, tuple[re.Pattern[str], _Node[T]]] = {}
        self.value: T | None = None

    def grown(self, word: str) -> _Node[T]:
        """Returns the node of a next word; a new one where it is unknown."""
        if "{" not in word:
            return self.words.setdefault(word, _Node())
        if word not in self.patterns:
            text = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(word))
            self.patterns[word] = re.compile(text), _Node()
        return self.patterns[word][1]


_Found = tuple[_Node[T], dict[str, str]]


class _Prefixes(Generic[T]):
    """What belongs to the longest prefix of a key.

    Prefixes are kept word by word, for a layout of a large model has hundreds of them and is asked
    for more than a thousand keys each time a model is loaded.
    """

    def __init__(self, table: Mapping[str, T]) -> None:
        self.root: _Node[T] = _Node()
        for prefix, value in table.items():
            node = self.root
            for word in prefix.split(".") if prefix else ():
                node = node.grown(word)
            node.value = value

    def match(self, key: str) -> tuple[T, dict[str, str], str] | None:
        """Returns what belongs to a key, the numbers in its prefix, and the words after that."""
        words = key.split(".")
        value, numbers, length = self.root.value, dict[str, str](), 0
        nodes: list[_Found[T]] = [(self.root, numbers)]
        for depth, word in enumerate(words, start=1):
            following: list[_Found[T]] = []
            for node, known in nodes:
                if child := node.words.get(word):  # the word itself comes before patterns
                    following.append((child, known))
                for pattern, child in node.patterns.values():
                    if found := pattern.fullmatch(word):
                        following.append((child, known | found.groupdict()))
            for node, known in following:
                if node.value is not None:
                    value, numbers, length = node.value, known, depth
                    break
            if not following:
                break
            nodes = following
        return None if value is None else (value, numbers, ".".join(words[length:]))

    def find(self, key: str, default: T) -> T:
        found = self.match(key)
        return default if found is None else found[0]

    def translate(self: _Prefixes[str], key: str) -> str | None:
        found = self.match(key)
        return None if found is None else _join(found[0].format(**found[1]), found[2])


def _join(*parts: str) -> str:
    return ".".join(filter(None, parts))


AS_IS: Final = KeyMap({"": ""})
"""The layout in which our own names are the published ones."""
