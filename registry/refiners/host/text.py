"""Text that others wrote, made safe to show.

A manifest, a catalog, a wheel, a path or the output of a plugin may hold characters that move the
cursor, change colours, retitle a terminal, or reorder and hide the words around them. `shown`
writes each of these as an escape; `is_plain` finds out whether there are any.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

UNSEEN: Final = (
    r"\x00-\x1f\x7f-\x9f\xad"  # C0, DEL, C1, the soft hyphen
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks of direction
    r"\u115f\u1160\u180e\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
)
"""What a terminal obeys or does not draw, as the inside of a character class."""
_LONGEST: Final = 5_000
"""The characters of a stranger's exception that are told."""
_HIDDEN: Final = re.compile(rf"[{UNSEEN}\ud800-\udfff\U000e0000-\U000e007f]")
_CELL: Final = re.compile(rf"[{UNSEEN}\ud800-\udfff\U000e0000-\U000e007f]|\s")


def shown(text: str, *, keep: str = "\n\t") -> str:
    r"""Returns a text with an escape such as `\x1b` for each character that is obeyed or hidden.

    Args:
        text: Of any origin; halves of surrogate pairs, as in paths that are not UTF-8, as well.
        keep: Which of these characters stay.
    """
    return _HIDDEN.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def shown_cell(text: str) -> str:
    """Returns a text for one line of a table: `shown`, with every line break as a blank."""
    flat = _CELL.sub(lambda match: " " if match[0] in " \n\t" else _escape(match[0]), text)
    return flat.strip()


def is_plain(text: str) -> bool:
    """Whether a text has no character that `shown` would replace, line breaks included."""
    return _HIDDEN.search(text) is None


def is_all_plain(value: Any, *, keep: str = "\n\t") -> bool:
    """Whether all texts in nested tables and lists are plain but for the characters to keep."""
    waiting: list[Any] = [value]
    while waiting:  # not by recursion, for strangers decide on the depth
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
    """Returns the text of an exception of a stranger's code, or its type if it has none."""
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # the text is the stranger's code as well
        text = ""
    return text[:_LONGEST] or type(error).__name__
