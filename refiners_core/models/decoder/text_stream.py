"""The text of tokens that come one by one, and the words that end it."""

from collections.abc import Sequence
from typing import Final

from refiners_core.models.decoder.tokenizer import TextTokenizer

_BROKEN: Final = "\N{REPLACEMENT CHARACTER}"
_TAIL: Final = 3
"""The number of bytes of a character that is not complete, at most."""


class TextStream:
    """Turns tokens into pieces of text, which together are the text of all tokens.

    The last bytes of a character that is not complete are held back, and so are words that may
    still become a stop.

    Args:
        tokenizer: The tokenizer.
        stops: The words that end the text; the earliest one counts, wherever its tokens begin.
    """

    def __init__(self, tokenizer: TextTokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer: Final = tokenizer
        self._stops: Final = tuple(stops)
        self._tokens: list[int] = []
        self._emitted = 0
        self.text = ""
        """The text so far, up to the stop; at the end, all of it."""
        self.is_stopped = False
        """Whether a stop has ended the text."""

    def push(self, token: int) -> str:
        """Adds a token and returns the text that is final with it, often nothing."""
        self._tokens.append(token)
        text = self._tokenizer.text(self._tokens)
        self.text = text[: len(text) - self._unfinished(text)]
        return self._piece(len(self.text) - self._hopeful(self.text))

    def finish(self) -> str:
        """Ends the text and returns what was held back."""
        if self.is_stopped:
            return ""
        self.text = self._tokenizer.text(self._tokens)
        return self._piece(len(self.text))

    def _piece(self, end: int) -> str:
        places = [place for stop in self._stops if (place := self.text.find(stop)) >= 0]
        if places:
            self.is_stopped = True
            self.text = self.text[: min(places)]
            end = len(self.text)
        piece = self.text[self._emitted : end]
        self._emitted = max(self._emitted, end)
        return piece

    def _unfinished(self, text: str) -> int:
        """Returns the number of characters at the end that further tokens may change."""
        if self._tokenizer.is_byte(self._tokens[-1]):
            # Tokens of single bytes are decoded together: a wrong one changes all before it.
            run = 0
            while run < len(self._tokens) and self._tokenizer.is_byte(self._tokens[-1 - run]):
                run += 1
            return len(text) - len(self._tokenizer.text(self._tokens[:-run]))
        return len(text) - len(text[-_TAIL:].rstrip(_BROKEN)) - len(text[:-_TAIL])

    def _hopeful(self, text: str) -> int:
        """Returns the number of characters at the end with which a stop may begin."""
        longest = max(map(len, self._stops), default=0)
        for length in range(min(longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
