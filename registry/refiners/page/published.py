"""The plugins of a catalog with all their releases, conformance reports and publishers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from refiners.catalog import folders, listed
from refiners.catalog.entry import (
    Listed,
    Release,
    entry_files,
    listed_as,
    parse_releases,
    read_releases,
    unique,
)
from refiners.errors import CatalogError
from refiners.manifest.schema import MANIFESTS, KindName, Spec
from refiners.manifest.version import is_development, version_of
from refiners.page.text import slug

_DAY: Final = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])(T|$)", re.ASCII)


class Published(Release, frozen=True, kw_only=True):
    """A release with the optional facts that an entry may have beside the manifest's table."""

    conformance: Any = None
    publisher: Any = None


class Check(msgspec.Struct, frozen=True):
    """One check of a conformance report."""

    check: str
    verdict: Literal["pass", "fail", "not-run"]
    reason: str | None = None


class Conformance(msgspec.Struct, frozen=True):
    """A conformance report: the verdicts of the contract's checks on one version of a plugin."""

    version: str
    checks: tuple[Check, ...]
    name: str = ""
    core: str = ""
    date: str = ""

    def count(self, verdict: str) -> int:
        """Returns the number of checks with a verdict."""
        return [check.verdict for check in self.checks].count(verdict)

    @property
    def day(self) -> str:
        """The date of the report, as `2026-11-26`; empty if it has none."""
        return self.date[:10] if _DAY.match(self.date) else ""

    @property
    def is_passed(self) -> bool:
        """Whether a check passed and none failed."""
        return self.count("pass") > 0 and not self.count("fail")


def conformance_of(report: Any) -> Conformance | None:
    """Returns a conformance report; None for anything that is not one."""
    try:
        return msgspec.convert(report, Conformance)
    except (msgspec.ValidationError, RecursionError):
        return None


class Plugin:
    """A published plugin: all releases of one name, kind and distribution.

    Args:
        releases: Its releases, newest first.
        entry: The newest one, as the search list has it.
    """

    def __init__(self, releases: tuple[Published, ...], entry: Listed) -> None:
        self.releases = releases
        self.newest = releases[0]
        self.entry = entry
        self.is_shared = False
        """Whether another distribution has a plugin of this name."""

    @cached_property
    def spec(self) -> Spec | None:
        """The table of its newest manifest; None if a later schema describes it."""
        return spec_of(self.newest)

    @property
    def path(self) -> str:
        """The path of its page in the site."""
        return f"plugin/{self.entry.distribution}/{self.entry.kind}-{slug(self.entry.name)}.html"

    @property
    def call(self) -> str:
        """The shortest name that is unambiguous in the catalog."""
        return self.entry.id if self.is_shared else self.entry.name

    @property
    def category(self) -> str:
        """The kind of an adapter, such as `control`; otherwise the kind of plugin."""
        return self.entry.does or self.entry.kind


def spec_of(release: Release) -> Spec | None:
    """Returns the table of a manifest; None if a later schema describes the release."""
    try:
        return msgspec.convert(release.spec, MANIFESTS[release.kind].spec)
    except msgspec.ValidationError:
        return None


def read_plugins(source: Path | None = None) -> tuple[Plugin, ...]:
    """Reads a catalog.

    Args:
        source: Its folder; by default, the catalog that `refiners search` reads.

    Returns:
        The plugins, sorted by name.

    Raises:
        CatalogError: The catalog is missing or damaged.
    """
    places = folders() if source is None else (source,)
    groups: dict[tuple[str, str, str], dict[str, Published]] = {}
    for place in places:
        paths = entry_files(place)
        if not paths:
            raise CatalogError(
                f"{place} is not a catalog: it has no entries.",
                hint="Build one: refiners catalog build dist/*.whl --out catalog",
            )
        for release in unique(release for path in paths for release in _published_in(path)):
            known = groups.setdefault(release.key, {})
            if release.version not in known or is_development(release.version):
                known[release.version] = release  # pyright: ignore[reportArgumentType]
    plugins = [_plugin(releases.values()) for releases in groups.values()]
    if len(places) > 1:  # a fetched copy never redefines a name
        allowed: Mapping[tuple[KindName, str], Listed] = {(e.kind, e.id): e for e in listed()}
        plugins = [plugin for plugin in plugins if (plugin.entry.kind, plugin.entry.id) in allowed]
    claims = Counter((plugin.entry.kind, plugin.entry.name) for plugin in plugins)
    for plugin in plugins:
        plugin.is_shared = claims[plugin.entry.kind, plugin.entry.name] > 1
    return tuple(sorted(plugins, key=lambda p: (p.entry.name, p.entry.id, p.entry.kind)))


_decoder: Final = msgspec.json.Decoder(Published)


def _published_in(path: Path) -> tuple[Published, ...]:
    try:
        content = path.read_bytes()
        return tuple(_decoder.decode(line) for line in content.split(b"\n") if line)
    except OSError:
        read_releases(path)
        raise
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        parse_releases(path.read_bytes(), path)
        raise


def _plugin(releases: Iterable[Published]) -> Plugin:
    lowest = version_of("0.dev0")
    ordered = sorted(releases, key=lambda r: version_of(r.version) or lowest, reverse=True)  # pyright: ignore[reportArgumentType, reportCallIssue]
    newest = ordered[0]
    bare = Release(
        name=newest.name,
        kind=newest.kind,
        distribution=newest.distribution,
        version=newest.version,
        spec=newest.spec,
    )
    try:
        return Plugin(tuple(ordered), listed_as(bare))
    except ValueError as error:
        raise CatalogError(
            f"a catalog has a malformed release: {error}.",
            hint="Restore it; if it was fetched, run refiners catalog forget.",
        ) from error
