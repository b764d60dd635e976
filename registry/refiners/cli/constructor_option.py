"""Parses the options of an adapter's constructor, `OPTION=VALUE`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import click

_RESERVED: Final = ("name", "model", "offline", "lock", "file")
"""The arguments of `load_adapter`, which cannot be options of an adapter."""
_WORDS: Final = {"true": True, "false": False, "none": None}


def parse_options(name: str, parts: Sequence[str]) -> dict[str, Any]:
    """Parses `OPTION=VALUE` parts; numbers, true, false and none are not strings."""
    options: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if not (equals and key.isidentifier()):
            raise click.BadParameter(
                f"{part!r} is not an option of {name}; write {name},OPTION=VALUE"
            )
        if key in options or key in _RESERVED[:-1]:
            problem = "is given twice" if key in options else "is not an option of adapters"
            raise click.BadParameter(f"{key} {problem}; see refiners info {name}")
        options[key] = _literal(value)
    return options


def _literal(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        value = json.loads(text, parse_constant=lambda word: word)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, dict) else value
