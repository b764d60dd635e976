"""Finds requirements of plugins that the installed packages do not meet, and pairs that conflict.

The requirements of a plugin are its own and those of the packages that it needs, as far as they are
installed. Only metadata are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import Final, NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from refiners.installed import inventory
from refiners.installed.distribution import canonical, name_on_disk, owner_of
from refiners.installed.inventory import is_plugin

_MOST: Final = 5_000
"""The most requirements that are followed."""


class Need(NamedTuple):
    """A requirement, and who has it."""

    plugin: str
    """The plugin that needs it, directly or through others."""
    owner: str
    """The distribution whose metadata have it."""
    version: str
    requirement: Requirement

    def __str__(self) -> str:
        through = f", which {self.plugin} needs," if self.owner != self.plugin else ""
        return f"{self.owner} {self.version}{through} requires {_shown(self.requirement)}"


class Unmet(NamedTuple):
    """A requirement that the installed packages do not meet."""

    need: Need
    installed: str
    """The installed version; empty if the package is not installed."""
    rival: Need | None
    """A requirement that no version meets together with it; None without one."""
    together: str
    """The requirement that all plugins have in common, such as `numpy>=2,<3`."""


def unmet_requirements() -> Iterator[Unmet]:
    """Yields the unmet requirements of installed plugins, one for each package that they need."""
    needs: dict[str, list[Need]] = {}
    for need in _needs():
        needs.setdefault(canonical(need.requirement.name), []).append(need)
    versions = _versions() if needs else {}
    for name, several in sorted(needs.items()):
        version = _version(name, versions)
        for need in several:
            if version is not None and _is_met(need, version):
                continue
            rival = next((other for other in several if _exclude(need, other)), None)
            specifiers = SpecifierSet()
            for other in several:
                specifiers &= other.requirement.specifier
            yield Unmet(need, str(version or ""), rival, f"{need.requirement.name}{specifiers}")
            break


def version_of_package(name: str) -> str:
    """Returns the installed version of a distribution; empty if it is not installed."""
    package = _metadata(name)
    return "" if package is None else package[0]


def _needs() -> Iterator[Need]:
    """Yields the requirements of all plugins, and of what they need."""
    left = _MOST
    for plugin, version, requirements in _plugins():
        waiting = [(plugin, version, text, "") for text in requirements]
        seen: set[tuple[str, str]] = set()
        while waiting and left:
            left -= 1
            owner, owner_version, text, extra = waiting.pop(0)
            requirement = _applicable(text, extra)
            if requirement is None:
                continue
            yield Need(plugin, owner, owner_version, requirement)
            name = canonical(requirement.name)
            for wanted in ("", *sorted(requirement.extras)):
                if (name, wanted) in seen:
                    continue
                seen.add((name, wanted))
                package = _metadata(name)
                if package is not None:
                    waiting += [
                        (name, package[0], line, wanted)
                        for line in package[1]
                        if wanted or "extra" not in line
                    ]


def _plugins() -> Iterator[tuple[str, str, list[str]]]:
    seen: set[str] = set()
    for dist in inventory.distributions():
        owner = owner_of(dist) if is_plugin(dist.read_text("entry_points.txt") or "") else None
        if owner is not None and owner.name not in seen:
            seen.add(owner.name)
            text = dist.read_text("METADATA") or dist.read_text("PKG-INFO") or ""
            yield owner.name, owner.version, _requirements_in(text)


def _requirements_in(text: str) -> list[str]:
    head = text.replace("\r\n", "\n").partition("\n\n")[0]
    start = "requires-dist:"
    lines = (line for line in head.splitlines() if line.lower().startswith(start))
    return [line[len(start) :].strip() for line in lines]


def _applicable(text: str, extra: str) -> Requirement | None:
    """Returns a requirement that holds on this machine; None if it does not, or is malformed."""
    try:
        requirement = Requirement(text)
        marker = requirement.marker
        is_meant = marker is None or marker.evaluate({"extra": extra})
    except (InvalidRequirement, ValueError, KeyError):
        return None
    return requirement if is_meant else None


def _metadata(name: str) -> tuple[str, list[str]] | None:
    try:
        dist = metadata.distribution(name)
        return dist.version, [*(dist.requires or ())]
    except Exception:  # a missing or a malformed package
        return None


def _versions() -> dict[str, Version | None]:
    """Returns the versions of what is installed where plugins are looked for."""
    versions: dict[str, Version | None] = {}
    for dist in inventory.distributions():
        name = name_on_disk(dist)
        if name and name not in versions and (owner := owner_of(dist)) is not None:
            versions[name] = _parsed(owner.version)
    return versions


def _version(name: str, versions: dict[str, Version | None]) -> Version | None:
    if name in versions:
        return versions[name]
    package = _metadata(name)
    return None if package is None else _parsed(package[0])


def _parsed(version: str) -> Version | None:
    try:
        return Version(version)
    except InvalidVersion:
        return None


def _is_met(need: Need, version: Version) -> bool:
    return need.requirement.specifier.contains(version, prereleases=True)


def _exclude(need: Need, other: Need) -> bool:
    """Whether no version meets both requirements, as far as the versions that they name show."""
    both = need.requirement.specifier & other.requirement.specifier
    if need.owner == other.owner or not len(both):
        return False
    return not any(both.contains(version, prereleases=True) for version in _candidates(both))


def _candidates(specifiers: SpecifierSet) -> Iterator[Version]:
    """Yields versions at, between and beyond those that some specifiers name."""
    yield from (Version("0"), Version("99999"))
    for specifier in specifiers:
        version = _parsed(specifier.version.removesuffix(".*"))
        if version is None:
            continue
        release = version.release
        yield version
        yield Version(f"{version.public}.1" if not version.is_prerelease else version.base_version)
        yield Version(".".join(map(str, (*release, 1))))
        for place in range(len(release)):
            if release[place]:
                below = (*release[:place], release[place] - 1, 99999)
                yield Version(".".join(map(str, below)))


def _shown(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"
