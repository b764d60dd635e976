"""Compares releases with a catalog before they are added: what changes, and whether they may."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from refiners.catalog import listed_in
from refiners.catalog.build import joined
from refiners.catalog.entry import Release, entry_files, read_releases, releases_of
from refiners.errors import CatalogError
from refiners.manifest.version import is_newer


class Proposal(NamedTuple):
    """A release that would be added, and how it differs from what the catalog has."""

    release: Release
    before: Release | None
    """The same version, or else the newest one; None for a new plugin."""
    lines: tuple[str, ...]
    """The differences, each beginning with `+` or `-`; none if the catalog has the release."""

    @property
    def title(self) -> str:
        """The release, and what it is compared with."""
        if self.before is None:
            return f"{self.release}, new"
        if not self.lines:
            return f"{self.release}, in the catalog"
        return f"{self.release}, compared with {self.before.version}"


def propose(
    folder: Path, releases: Iterable[Release], *, accept_publisher: bool = False
) -> tuple[Proposal, ...]:
    """Compares releases with a catalog; writes nothing.

    Args:
        folder: The catalog; it need not exist.
        releases: The releases, as wheels have them.
        accept_publisher: Whether another publisher than the recorded one may add them.

    Raises:
        CatalogError: A name belongs to another distribution, the publisher is not the recorded one,
            or a published release would change.
    """
    releases = tuple(releases)
    _check_names(folder, releases)
    if not accept_publisher:
        _check_publishers(folder, releases)
    return tuple(_proposal(folder, release) for release in releases)


def _proposal(folder: Path, release: Release) -> Proposal:
    before: Release | None = None
    for known in releases_of(folder, release):
        if known.version == release.version:
            release, before = joined(known, release), known
            break
        if before is None or is_newer(known.version, before.version):
            before = known
    old, new = _flat(before) if before else {}, _flat(release)
    lines: list[str] = []
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            lines += [f"- {key} = {old[key]}"] if key in old else []
            lines += [f"+ {key} = {new[key]}"] if key in new else []
    return Proposal(release, before, tuple(lines))


def _flat(release: Release) -> dict[str, str]:
    """Returns the facts about a release, one text for each dotted key."""
    values = dict(release.spec)
    if release.publisher is not None:
        values["publisher"] = str(release.publisher)
    if release.conformance is not None:
        checks = release.conformance.checks
        values["conformance"] = {check.check: check.verdict for check in checks}
    return dict(_leaves("version", release.version)) | dict(_leaves("", values))


def _leaves(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, item in cast("Mapping[str, Any]", value).items():
            yield from _leaves(f"{key}.{name}" if key else name, item)
    elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(cast("list[Any]", value)):
            yield from _leaves(f"{key}[{index}]", item)
    else:
        yield key, msgspec.json.encode(value).decode()


def _check_names(folder: Path, releases: Iterable[Release]) -> None:
    """Refuses a name or an alias that another distribution published first."""
    owners: dict[str, str] = {}
    entries = listed_in(folder)
    for entry in entries:
        for name in entry.aliases:
            owners.setdefault(name, entry.distribution)
    owners |= {entry.name: entry.distribution for entry in reversed(entries)}
    for release in releases:
        for name in (release.name, *release.spec.get("aliases", ())):
            owner = owners.setdefault(name, release.distribution)
            if owner != release.distribution:
                raise CatalogError(
                    f"{release.distribution} names {name!r}, which {owner} published first.",
                    hint="Choose another name, or let the owner hand it over.",
                )


def _check_publishers(folder: Path, releases: Iterable[Release]) -> None:
    """Refuses a release by another publisher than that of the newest recorded release."""
    recorded: dict[str, Release] = {}
    wanted = {release.distribution for release in releases}
    for path in entry_files(folder):
        for known in read_releases(path):
            if known.publisher is None or known.distribution not in wanted:
                continue
            last = recorded.setdefault(known.distribution, known)
            if is_newer(known.version, last.version):
                recorded[known.distribution] = known
    for release in releases:
        last = recorded.get(release.distribution)
        if last is None or last.publisher is None:
            continue
        old = last.publisher.identity
        new = release.publisher.identity if release.publisher else ""
        if new == old or (not new and last.version == release.version):
            continue
        subject = f"{release.distribution} {last.version} was published by {old}"
        raise CatalogError(
            f"{subject}, and {release.version} is by {new}."
            if new
            else f"{subject}, and {release.version} has no attested publisher.",
            hint="Publish it by the same workflow; if the project has moved, which its owner "
            "confirms, add --accept-publisher.",
        )
