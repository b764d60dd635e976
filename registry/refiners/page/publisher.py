"""Who published a release, as an entry of the catalog records it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from refiners.manifest.pattern import REPOSITORY
from refiners.page.link import web_link
from refiners.page.text import clipped

_MOST: Final = 8
"""The most facts of a publisher that are shown."""


class Fact(NamedTuple):
    """A labelled text with an optional link."""

    label: str
    text: str
    link: str = ""


def publisher_facts(publisher: Any) -> tuple[Fact, ...]:
    """Returns what an entry records about its publisher, whatever keys a later version adds."""
    return (*_facts(_table(publisher)),)


def publisher_change(publishers: Sequence[Any]) -> str:
    """Returns a sentence if the last of some publishers is another than the one before it."""
    names = [_name(_table(publisher)) for publisher in publishers]
    if len(names) < 2 or names[-1] == names[-2] or not names[-2]:
        return ""
    return f"Published by {names[-1] or 'an unknown publisher'}; before by {names[-2]}."


def _facts(table: Mapping[Any, Any]) -> Iterator[Fact]:
    for key, value in [*table.items()][:_MOST]:
        label = clipped(str(key).replace("_", " "), 40)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
            text = clipped(str(value), 200)
            yield Fact(label, text, web_link(value) or _repository(table, key, text))
    if table:
        is_verified = table.get("verified") is True
        yield Fact("signature", "verified" if is_verified else "claimed by the index, not verified")


def _repository(table: Mapping[Any, Any], key: Any, text: str) -> str:
    is_known = key == "repository" and table.get("kind") == "GitHub"
    return f"https://github.com/{text}" if is_known and re.fullmatch(REPOSITORY, text) else ""


def _name(table: Mapping[Any, Any]) -> str:
    values = [table.get(key) for key in ("kind", "repository", "workflow")]
    return clipped(" ".join(value for value in values if isinstance(value, str) and value), 200)


def _table(publisher: Any) -> Mapping[Any, Any]:
    return cast("Mapping[Any, Any]", publisher) if isinstance(publisher, dict) else {}
