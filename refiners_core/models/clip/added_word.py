"""The words that adapters bring to a tokenizer, each of one or several tokens."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final


class AddedWords:
    """Words with tokens of their own, found in a text as whole words, in any case.

    A word that begins or ends with a letter, a digit or `_` is not found beside another one of
    these: `cat` is neither in `cats` nor in `cat2`. Of words that begin alike, the longest counts.

    Args:
        words: The ids of the tokens of each word, which are below zero.

    Example:
        >>> [*AddedWords({"<cat>": [-1, -2], "<cat>2": [-3]}).split("a <cat>2, <CAT>")]
        ['a ', [-3], ', ', [-1, -2]]
    """

    def __init__(self, words: Mapping[str, Sequence[int]]) -> None:
        longest_first = sorted(filter(words.get, words), key=len, reverse=True)
        self._groups: Final = [words[word] for word in longest_first]
        self._last: Final = {words[word][-1]: word for word in longest_first}
        self._pattern: Final = re.compile(
            "|".join([f"({_whole(word)})" for word in longest_first]), re.IGNORECASE
        )

    def split(self, text: str) -> Iterator[str | Sequence[int]]:
        """Yields the parts of a text in order: other texts, and the tokens of each word."""
        position = 0
        for match in self._pattern.finditer(text) if self._groups else ():
            if match.start() > position:
                yield text[position : match.start()]
            yield self._groups[(match.lastindex or 1) - 1]
            position = match.end()
        if position < len(text):
            yield text[position:]

    def is_end(self, token: int) -> bool:
        """Whether a token is the last one of a word."""
        return token in self._last

    def word_of(self, last: int) -> str:
        """Returns the word with a last token."""
        return self._last[last]


def _whole(word: str) -> str:
    """Returns the pattern of a word that is not part of a longer one."""
    before = r"(?<!\w)" if re.match(r"\w", word) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", word) else ""
    return f"{before}{re.escape(word)}{after}"
