"""Checks a plugin before its upload: what its users, the index and the catalog will ask of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from refiners.authoring.outcome import Outcome, Verdict
from refiners.authoring.package import Package, opened
from refiners.authoring.pin import pinned_manifests
from refiners.authoring.published import name_checks, version_checks
from refiners.authoring.remote_card import card_checks
from refiners.authoring.validate import kind_of_file, manifest_findings, validate
from refiners.authoring.wheel_content import conformance_checks, example_checks, wheel_checks
from refiners.errors import ManifestError, NetworkError, OfflineError, RefinersError
from refiners.host.shell import quoted
from refiners.hub.client import Hub
from refiners.installed.distribution import DISTRIBUTION, canonical
from refiners.manifest.reader import load_manifest
from refiners.manifest.schema import Spec
from refiners.manifest.version import specifiers, version_of

_SHORTEST: Final = 300
"""The characters of a README below which it hardly explains anything."""
_KEYWORD: Final = "refiners"
_ONLINE: Final = "Run it without --offline, and with REFINERS_OFFLINE and HF_HUB_OFFLINE unset."


class PublishCheck(NamedTuple):
    """The outcome of one check; a problem blocks the upload, a warning does not."""

    check: str
    verdict: Verdict
    what: str
    fix: str = ""
    """The next thing to type; empty if nothing is needed."""


def check_package(path: Path, hub: Hub) -> tuple[PublishCheck, ...]:
    """Checks a plugin; runs none of its code.

    Args:
        path: The folder of the plugin, or its wheel.
        hub: The Hub that has its weights; offline, the checks that need it do not run.

    Raises:
        OptionError: The path is neither.
    """
    with opened(path) as package:
        checks: dict[str, Callable[[], Iterator[Outcome]]] = {
            "name": lambda: name_checks(package, _specs(package)),
            "version": lambda: version_checks(package),
            "manifest": lambda: _manifest(package),
            "pins": lambda: _pins(package, hub),
            "license": lambda: _license(package),
            "readme": lambda: _readme(package),
            "wheel": lambda: wheel_checks(package, _specs(package)),
            "core": lambda: _core(package),
            "discovery": lambda: _discovery(package),
            "conformance": lambda: conformance_checks(package, _specs(package)),
            "card": lambda: card_checks(package, _specs(package), hub),
            "examples": lambda: example_checks(package),
        }
        unpacked = "" if package.is_folder else f"{package.manifests[0].parents[1]}{os.sep}"
        return tuple(
            PublishCheck(name, verdict, _without(unpacked, what), _without(unpacked, fix))
            for name, check in checks.items()
            for verdict, what, fix in _outcomes(check)
        )


def _without(folder: str, text: str) -> str:
    """Leaves out the temporary folder of a wheel, which no longer exists when the text is read."""
    return text.replace(folder, "") if folder else text


def _outcomes(check: Callable[[], Iterator[Outcome]]) -> list[Outcome]:
    """Returns the outcomes of a check; one that fails does not keep others from running."""
    outcomes: list[Outcome] = []
    try:
        outcomes += check()
    except OfflineError as error:
        outcomes.append(("not-run", error.message, _ONLINE))
    except NetworkError as error:
        outcomes.append(("not-run", error.message, error.hint))
    except RefinersError as error:
        outcomes.append(("problem", error.message.strip(), error.hint))
    return outcomes or [("pass", "", "")]


def _specs(package: Package) -> dict[str, Spec]:
    """Returns the tables of all manifests by name; none of a manifest with faults."""
    specs: dict[str, Spec] = {}
    for path in package.manifests:
        try:
            specs |= load_manifest(path, kind_of_file(path)).tables
        except ManifestError:  # the finding of another check
            continue
    return specs


def _manifest(package: Package) -> Iterator[Outcome]:
    if package.is_folder:
        findings = validate(package.path, is_strict=True)
    else:
        findings = tuple(
            finding
            for path in package.manifests
            for finding in manifest_findings(path, kind_of_file(path), path.parents[1], True)
        )
    fix = quoted("refiners", "validate", "--strict", package.path) if package.is_folder else ""
    for finding in findings:
        yield "problem", f"{finding.path.name}: {finding.what}", fix


def _pins(package: Package, hub: Hub) -> Iterator[Outcome]:
    for path in package.manifests:
        (pinned,) = pinned_manifests(path, hub)
        target = package.path if package.is_folder else path.name
        for change in pinned.changes:
            is_open = change.is_missing
            what = f"{change.file}: {change.key} is {'missing' if is_open else change.old}"
            what += "" if is_open else f", and the Hub has {change.new}"
            yield "problem" if is_open else "warning", what, quoted("refiners", "pin", target)


def _license(package: Package) -> Iterator[Outcome]:
    if not package.license:
        yield "problem", "the package has no licence", '[project] license = "MIT"'
    for name, spec in _specs(package).items():
        if not spec.license:
            yield "problem", f"{name} has no license", f'license = "{package.license or "MIT"}"'
        for role, file in spec.weights.items():
            if not file.license:
                yield "problem", f"{name}.weights.{role} has no license", 'license = "..."'
            elif file.terms:
                what = f"{name}.weights.{role} is for {file.terms} use only: {file.license}"
                yield "warning", what, "State it in the README."


def _readme(package: Package) -> Iterator[Outcome]:
    text = package.readme.strip()
    if not text:
        yield "problem", "the package has no README", '[project] readme = "README.md"'
        return
    if len(text) < _SHORTEST:
        what = f"the README has {len(text)} characters"
        yield "warning", what, "Show what the adapter does, and how to use it."
    if f"pip install {package.name}" not in text:
        what = "the README does not show how to install the package"
        yield "warning", what, f"pip install {package.name}"
    if "![" not in text and "<img" not in text:
        yield "warning", "the README has no picture", "![What it does](https://...)"


def _core(package: Package) -> Iterator[Outcome]:
    from packaging.requirements import InvalidRequirement, Requirement

    from refiners.installed.dependency import version_of_package

    installed = version_of_package(DISTRIBUTION)
    wanted = f'"{DISTRIBUTION}{_range_with(installed)}"'
    for text in package.requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            yield "problem", f"{text!r} is not a requirement: {error}", "See PEP 508."
            continue
        if canonical(requirement.name) != DISTRIBUTION:
            continue
        if installed and not requirement.specifier.contains(installed, prereleases=True):
            what = f"{text} excludes the {DISTRIBUTION} {installed} that is installed"
            yield "problem", what, wanted
        if not any(part.operator in ("<", "<=", "==", "~=") for part in requirement.specifier):
            what = f"{text} accepts every later major version"
            yield "warning", what, wanted
        return
    yield "problem", f"the package does not require {DISTRIBUTION}", f"dependencies = [{wanted}]"


def _range_with(installed: str) -> str:
    """Returns a range of the core up to the next major version that has the installed one."""
    usual, version = ">=1.0,<2", version_of(installed)
    if version is None or specifiers(usual).contains(version, prereleases=True):
        return usual
    return f">={version.public},<{version.major + 1}"


def _discovery(package: Package) -> Iterator[Outcome]:
    if _KEYWORD not in {word.lower() for word in package.keywords}:
        what = f"the keywords lack {_KEYWORD!r}, by which the index finds adapters"
        yield "warning", what, f'[project] keywords = ["{_KEYWORD}"]'
    if not package.classifiers:
        topic = "Topic :: Scientific/Engineering :: Artificial Intelligence"
        yield "warning", "the package has no classifiers", f'[project] classifiers = ["{topic}"]'
    if not package.repository:
        what = "the metadata do not name the repository"
        yield "warning", what, '[project.urls] Repository = "https://..."'
