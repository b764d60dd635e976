"""The conformance report: the verdict of each check, with a reason; never a gate."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from refiners.host.text import shown

from refiners_core import API_VERSION

SCHEMA: Final = 1
"""The version of the document."""
_LONGEST: Final = 2_000
"""The limit of a reason, in characters."""
Verdict = Literal["pass", "fail", "not-run"]


@dataclass
class Conformance:
    """The verdicts on one plugin of a package."""

    name: str
    dist: str
    version: str
    verdicts: dict[str, tuple[Verdict, str | None]] = field(
        default_factory=dict[str, tuple[Verdict, str | None]]
    )
    """The verdict and its reason, by the id of the check."""

    def add(self, check: str, verdict: Verdict, reason: str | None) -> None:
        """Records a verdict; a failure stays one, whatever a later phase of the test reports."""
        if self.verdicts.get(check, ("pass", None))[0] != "fail":
            self.verdicts[check] = verdict, reason and shown(reason)[:_LONGEST]

    @property
    def document(self) -> Mapping[str, Any]:
        """The report as the tables of its JSON file."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "dist": self.dist,
            "version": self.version,
            "core": API_VERSION,
            "date": datetime.now(UTC).date().isoformat(),
            "checks": [
                {"check": check, "verdict": verdict, "reason": reason}
                for check, (verdict, reason) in self.verdicts.items()
            ],
        }


def write_reports(reports: Iterable[Conformance], path: Path) -> None:
    """Writes the reports as JSON: one object, or a list of them for several plugins.

    Args:
        reports: The reports.
        path: The file; its folder is made.
    """
    documents = [report.document for report in reports]
    content = documents[0] if len(documents) == 1 else documents
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{json.dumps(content, indent=2)}\n", "utf-8")
