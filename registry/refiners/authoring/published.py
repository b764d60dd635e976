"""Compares a package with the catalog: are its names free or its own, and is its version new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from refiners.authoring.outcome import Outcome
from refiners.authoring.package import Package
from refiners.catalog import listed, releases
from refiners.choose.publisher import recorded_publishers
from refiners.manifest.schema import Spec
from refiners.manifest.version import is_development, is_newer, is_same, version_of


def name_checks(package: Package, specs: Mapping[str, Spec]) -> Iterator[Outcome]:
    """Yields what the catalog has against the names of a package."""
    if not package.name.startswith("refiners-"):
        what = f'the name {package.name!r} does not begin with "refiners-"'
        yield "warning", what, f'[project] name = "refiners-{package.name}"'
    entries = listed()
    owners: dict[str, str] = {}
    for entry in entries:
        owners.setdefault(entry.name, entry.distribution)
    for entry in entries:
        for alias in entry.aliases:
            owners.setdefault(alias, entry.distribution)
    is_taken = False
    for name, spec in specs.items():
        for word in (name, *spec.aliases):
            owner = owners.get(word, package.name)
            if owner != package.name:
                is_taken = True
                what = f"{word!r} is taken: {owner} published it first"
                yield "problem", what, f"Choose another name than {word}."
    versions = recorded_publishers((package.name,)).get(package.name, {})
    newest = max(
        (version for version, who in versions.items() if who and version_of(version)),
        key=lambda version: version_of(version) or 0,
        default=None,
    )
    if newest is not None and package.repository:
        who = versions[newest]
        repository = who.partition(":")[2].partition("@")[0]
        mine = package.repository.lower().rstrip("/").removesuffix(".git")
        if not mine.endswith(f"/{repository}"):
            what = f"{package.name} {newest} was published by {who}, and this is of {mine}"
            yield "problem", what, "Publish it from that repository, or choose another name."
            return
        yield "pass", f"{package.name} is yours: {who}", ""
    elif not is_taken and not any(entry.distribution == package.name for entry in entries):
        yield "pass", "free", ""


def version_checks(package: Package) -> Iterator[Outcome]:
    """Yields what keeps the index or the catalog from accepting the version."""
    fix = '[project] version = "..."'
    version = version_of(package.version)
    if version is None:
        yield "problem", f"{package.version!r} is not a version (PEP 440)", fix
        return
    if version.local:
        yield "problem", f"{package.version} is a local version, which indexes refuse", fix
    known = [
        release.version
        for entry in listed()
        if entry.distribution == package.name
        for release in releases(entry)
    ]
    if is_development(package.version):
        yield "warning", f"{package.version} is a development version", fix
    elif any(is_same(package.version, other) for other in known):
        yield "problem", f"{package.version} is published already", fix
    elif newer := [other for other in known if is_newer(other, package.version)]:
        yield "warning", f"{newer[-1]} is newer and published already", fix
    else:
        yield "pass", package.version, ""
