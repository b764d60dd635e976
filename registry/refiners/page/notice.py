"""The statements of advisories about a release and its files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from refiners.catalog import SHIPPED, Release, folders
from refiners.choose.policy import Guard, names_file
from refiners.choose.policy_rules import Advisories, Advisory, read_rules
from refiners.installed.distribution import canonical
from refiners.manifest.schema import Spec

AVAILABLE: Final = "available"
STATUSES: Final = (AVAILABLE, "deprecated", "yanked", "blocked")
"""The statuses of a plugin, from the best to the worst."""


class Notice(NamedTuple):
    """An advisory that concerns a release, or one of its files."""

    id: str
    status: str
    reason: str
    subject: str
    instead: str
    lowest: str
    """The lowest version of the package that is not affected; empty if it is about a file."""


class _Subject(NamedTuple):
    dist: str
    version: str
    id: str


class Notices:
    """The advisories of a catalog, by what they are about.

    Args:
        advisories: The advisories.
    """

    def __init__(self, advisories: Iterable[Advisory] = ()) -> None:
        self._packages: dict[str, list[Advisory]] = {}
        self._patterns: list[Advisory] = []
        self._files: list[Advisory] = []
        for advisory in advisories:
            name = canonical(advisory.package.strip())
            if advisory.package and not set(name) & set("*?["):
                self._packages.setdefault(name, []).append(advisory)
            elif advisory.package:
                self._patterns.append(advisory)
            if advisory.sha256 or advisory.repository:
                self._files.append(advisory)

    @classmethod
    def of(cls, source: Path | None) -> Notices:
        """Reads the advisories of a catalog, and those that come with refiners.

        Raises:
            PolicyError: A list of advisories is damaged.
        """
        places = (SHIPPED, *folders()) if source is None else (SHIPPED, source)
        paths = dict.fromkeys(place / "advisories.toml" for place in places)
        lists = [read_rules(path, Advisories) for path in paths if path.is_file()]
        return cls(dict.fromkeys(advisory for each in lists for advisory in each.advisory))

    def about(self, release: Release, spec: Spec | None) -> tuple[Notice, ...]:
        """Returns the advisories on a release and its files, the gravest first."""
        notices = [*self._on_package(release), *self._on_files(spec)]
        return tuple(sorted(notices, key=lambda notice: -STATUSES.index(notice.status)))

    def _on_package(self, release: Release) -> Iterator[Notice]:
        nearby = (*self._packages.get(release.distribution, ()), *self._patterns)
        if nearby:
            subject = _Subject(release.distribution, release.version, str(release))
            name = f"{release.distribution} {release.version}"
            for advisory in Guard(advisories=nearby).about(subject):
                yield _notice(advisory, name, advisory.lowest)

    def _on_files(self, spec: Spec | None) -> Iterator[Notice]:
        for advisory in self._files if spec is not None and spec.weights else ():
            for file in spec.weights.values() if spec is not None else ():
                if names_file(advisory, file):
                    yield _notice(advisory, str(file), "")


def _notice(advisory: Advisory, subject: str, lowest: str) -> Notice:
    return Notice(advisory.id, advisory.status, advisory.reason, subject, advisory.instead, lowest)


def status_of(notices: Iterable[Notice]) -> str:
    """Returns the gravest status among notices; `available` without any."""
    known = [notice.status for notice in notices]
    return max(known, key=STATUSES.index, default=AVAILABLE)
