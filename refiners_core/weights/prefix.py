"""What belongs to the longest prefix of a name, followed word by word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Way(Generic[T]):
    """How far the words that were said lead into the prefixes of a table."""

    nodes: tuple[tuple[_Node[T], Mapping[str, str]], ...]
    """Where longer prefixes would go on, with the numbers on the way there."""
    value: T | None
    """What belongs to the longest prefix so far; None where none has ended yet."""
    numbers: Mapping[str, str]
    """The numbers in that prefix."""
    rest: str
    """The words after it."""

    def on(self, word: str) -> Way[T]:
        """Returns how far one word more leads."""
        value, numbers = self.value, self.numbers
        rest = f"{self.rest}.{word}" if self.rest else word
        if not self.nodes:
            return Way((), value, numbers, rest)
        following: list[tuple[_Node[T], Mapping[str, str]]] = []
        for node, known in self.nodes:
            if child := node.words.get(word):  # the word itself comes before patterns
                following.append((child, known))
            for pattern, child in node.patterns.values():
                if found := pattern.fullmatch(word):
                    following.append((child, {**known, **found.groupdict()}))
        for node, known in following:
            if node.value is not None:
                value, numbers, rest = node.value, known, ""
                break
        leading = tuple([it for it in following if it[0].words or it[0].patterns])
        return Way(leading, value, numbers, rest)


class Prefixes(Generic[T]):
    """A table by prefixes: whole words between dots, in which `{i}` stands for a number.

    It is kept word by word, so that who walks down a tree asks one step for each layer: a layout
    has hundreds of prefixes and is asked for more than a thousand keys when a model is loaded.

    Args:
        table: What belongs to which prefix.
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
        """Returns how far all words of a key lead."""
        way = self.start
        for word in key.split("."):
            way = way.on(word)
        return way


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
