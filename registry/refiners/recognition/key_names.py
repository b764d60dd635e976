"""Matches the names of tensors with patterns, in time linear in their total length."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final


class KeyNames:
    """The names of the tensors in a file.

    Args:
        keys: The names; those with a line break, which no publisher writes, are left out.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._text: Final = "\n".join(key for key in keys if "\n" not in key)

    def has(self, pattern: str) -> bool:
        """Whether a name matches a pattern, in which `*` stands for any characters."""
        return self._may_have(pattern) and _compiled(pattern).search(self._text) is not None

    def matching(self, pattern: str) -> list[str]:
        """Returns the names that match a pattern, in the order of the file."""
        if not self._may_have(pattern):
            return []
        return [match[0] for match in _compiled(pattern).finditer(self._text)]

    def _may_have(self, pattern: str) -> bool:
        # most patterns fail here, and a search for a plain text is far faster than a match
        # and a file without tensors has no name, not an empty one
        return bool(self._text) and all(part in self._text for part in pattern.split("*"))


def is_match(text: str, pattern: str) -> bool:
    """Whether a text of one line matches a pattern."""
    return _compiled(pattern).fullmatch(text) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    first, *others = map(re.escape, pattern.split("*"))
    if not others:
        return re.compile(f"^{first}$", re.MULTILINE)
    *middle, last = others
    # atomic groups keep the leftmost place of each part, so that nothing is tried twice
    inside = "".join(rf"(?>[^\n]*?{part})" for part in middle)
    return re.compile(rf"^{first}{inside}[^\n]*{last}$", re.MULTILINE)
