"""The types that tables of manifests share."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

END: Final = r"$(?!\n)"
"""The end of a text in Python and in JSON Schema; a bare `$` would accept a final newline."""

WORDS: Final = r"[a-z0-9]+(-[a-z0-9]+)*"
"""Lower-case words joined by hyphens."""

Name = Annotated[
    str, Meta(pattern=f"^{WORDS}{END}", description="lower-case words joined by hyphens")
]
Fact = str | int | float | bool
