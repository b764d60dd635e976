"""The types that tables of manifests share."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

END: Final = r"$(?!\n)"
"""The end of a text in Python and in JSON Schema; a bare `$` would accept a final newline."""

Name = Annotated[
    str,
    Meta(
        pattern=f"^[a-z0-9]+(-[a-z0-9]+)*{END}",
        description="lower-case words joined by hyphens",
    ),
]
Fact = str | int | float | bool
