"""Hooks that do nothing."""

from typing import Any

from refiners_core.hookspecs import hookimpl


@hookimpl
def before_inject(event: Any) -> None:
    """Allows every inject."""


@hookimpl
def fetch_weights(event: Any) -> None:
    """Leaves every request to other hooks."""
