"""A table looked up by the longest prefix of a dotted name, word by word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Way(Generic[T]):
    """The position in a table of prefixes after following some words."""

    nodes: tuple[tuple[_Node[T], Mapping[str, str]], ...]
    """The nodes from which longer prefixes continue, with the numbers matched on the way."""
    value: T | None
    """The value of the longest prefix so far; None if no prefix has ended yet."""
    numbers: Mapping[str, str]
    """The numbers matched in that prefix, by name."""
    rest: str
    """The words after that prefix, joined by dots."""

    def on(self, word: str) -> Way[T]:
        """Returns the position after one more word."""
        value, numbers = self.value, self.numbers
        rest = f"{self.rest}.{word}" if self.rest else word
        if not self.nodes:
            return Way((), value, numbers, rest)
        following: list[tuple[_Node[T], Mapping[str, str]]] = []
        for node, known in self.nodes:
            if child := node.words.get(word):  # literal words come before patterns
                following.append((child, known))
            for pattern, child in node.patterns.values():
                if match := pattern.fullmatch(word):
                    following.append((child, {**known, **match.groupdict()}))
        for node, known in following:
            if node.value is not None:
                value, numbers, rest = node.value, known, ""
                break
        leading = tuple([(node, k) for node, k in following if node.words or node.patterns])
        return Way(leading, value, numbers, rest)


class Prefixes(Generic[T]):
    """A table of values by prefix: whole words between dots, in which `{i}` matches a number.

    Stored word by word, so that a walk down a tree takes one step per layer: a layout has hundreds
    of prefixes, and loading a model looks up more than a thousand keys.

    Args:
        table: The values by prefix.
    """

    def __init__(self, table: Mapping[str, T]) -> None:
        root = _Node[T]()
        for prefix, value in table.items():
            node = root
            for word in prefix.split(".") if prefix else ():
                node = node.grown(word)
            node.value = value
        self.start: Final[Way[T]] = Way(((root, {}),), root.value, {}, "")

    def way(self, key: str) -> Way[T]:
        """Returns the position after all words of a key."""
        way = self.start
        for word in key.split("."):
            way = way.on(word)
        return way


class _Node(Generic[T]):
    """A word of some prefixes: the words that may follow, and the value of the prefix that ends."""

    def __init__(self) -> None:
        self.words: dict[str, _Node[T]] = {}
        self.patterns: dict[str, tuple[re.Pattern[str], _Node[T]]] = {}
        self.value: T | None = None

    def grown(self, word: str) -> _Node[T]:
        """Returns the node of the next word, which is added if it is new."""
        if "{" not in word:
            return self.words.setdefault(word, _Node())
        if word not in self.patterns:
            text = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(word))
            self.patterns[word] = re.compile(text), _Node()
        return self.patterns[word][1]
