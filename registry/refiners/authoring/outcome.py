"""The outcome of a check before publication."""

from __future__ import annotations

from typing import Literal

Verdict = Literal["pass", "warning", "problem", "not-run"]
"""A problem blocks the upload; a warning, or a check that did not run, does not."""
Outcome = tuple[Verdict, str, str]
"""The verdict, the fact, and the next thing to type; empty texts if nothing is needed."""
