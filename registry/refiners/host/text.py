"""Makes text that others wrote safe to print.

A manifest, a catalog, a wheel, a path or the output of a plugin may hold characters that move the
cursor, change colours, retitle a terminal, or reorder and hide the words around them. `shown`
replaces each of these with an escape; `is_plain` tells whether a text has any.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

UNSEEN: Final = (
    r"\x00-\x1f\x7f-\x9f\xad"  # C0, DEL, C1, the soft hyphen
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks of direction
    r"\u115f\u1160\u180e\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
)
"""The characters that a terminal interprets or does not draw, for a character class."""
_LONGEST: Final = 5_000
"""The most characters of a foreign exception that are printed."""
_HIDDEN: Final = re.compile(rf"[{UNSEEN}\ud800-\udfff\U000e0000-\U000e007f]")
_CELL: Final = re.compile(rf"[{UNSEEN}\ud800-\udfff\U000e0000-\U000e007f]|\s")


def shown(text: str, *, keep: str = "\n\t") -> str:
    r"""Replaces each character that a terminal interprets or hides with an escape like `\x1b`.

    Args:
        text: Any text, even with lone surrogates, as in paths that are not UTF-8.
        keep: The characters among these that stay.
    """
    return _HIDDEN.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def shown_cell(text: str) -> str:
    """Returns a text for one line of a table: as `shown`, with a blank for each line break."""
    flat = _CELL.sub(lambda match: " " if match[0] in " \n\t" else _escape(match[0]), text)
    return flat.strip()


def is_plain(text: str) -> bool:
    """Whether a text has neither line breaks nor characters that `shown` would replace."""
    return _HIDDEN.search(text) is None


def is_all_plain(value: Any, *, keep: str = "\n\t") -> bool:
    """Whether all texts in nested tables and lists are plain, apart from the characters to keep."""
    waiting: list[Any] = [value]
    while waiting:  # without recursion, because the input decides on the depth
        item = waiting.pop()
        if isinstance(item, str):
            if any(match[0] not in keep for match in _HIDDEN.finditer(item)):
                return False
        elif isinstance(item, dict):
            table = cast("dict[Any, Any]", item)
            waiting += [*table.keys(), *table.values()]
        elif isinstance(item, list | tuple):
            waiting += cast("list[Any]", item)
    return True


def _escape(character: str) -> str:
    code = ord(character)
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def reason_of(error: BaseException) -> str:
    """Returns the text of an exception of foreign code, or its type without one."""
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # the conversion to text is foreign code as well
        text = ""
    return text[:_LONGEST] or type(error).__name__
