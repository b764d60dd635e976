"""The conformance report of a release: the checks of the contract, and their verdicts.

The wheel carries it as `conformance.json` beside its manifest. It informs and never decides.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from refiners.host.text import is_all_plain
from refiners.installed.distribution import canonical
from refiners.manifest.term import Name
from refiners.manifest.version import is_same

FILE: Final = "conformance.json"
"""The name of the report in a package."""


class ConformanceCheck(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One check of the contract."""

    check: str
    verdict: Literal["pass", "fail", "not-run"]
    reason: str | None = None
    """Why it failed or did not run."""


class Conformance(msgspec.Struct, frozen=True, kw_only=True):
    """The report on one adapter or model of one version."""

    schema: Annotated[int, Meta(ge=1, le=1)]
    name: Name
    dist: str
    version: str
    core: str
    """The version of `refiners-core` with which the checks ran."""
    date: str
    checks: tuple[ConformanceCheck, ...]

    def is_of(self, dist: str, version: str) -> bool:
        """Whether the report is about this version of a distribution."""
        return canonical(self.dist) == canonical(dist) and is_same(self.version, version)

    @property
    def failed(self) -> tuple[ConformanceCheck, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.verdict == "fail")


def reports_in(content: bytes) -> tuple[Conformance, ...]:
    """Returns the reports in a file: one, or a list for a package with several plugins.

    Raises:
        ValueError: The content is not a report, or has control characters.
    """
    try:
        read = msgspec.json.decode(content, type=Conformance | tuple[Conformance, ...])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"{FILE} is not a conformance report: {error}") from error
    reports = read if isinstance(read, tuple) else (read,)
    if not is_all_plain(msgspec.to_builtins(reports)):
        raise ValueError(f"{FILE} has control characters")
    return reports
