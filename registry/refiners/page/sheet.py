"""The facts of a plugin's page: what to type, places, files, licences, advice, versions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from refiners.manifest.pattern import UNKNOWN
from refiners.manifest.schema import AdapterSpec, ModelSpec, Spec, WeightsFile
from refiners.page.card import Card
from refiners.page.change import changes
from refiners.page.command import python_lines, shell_lines
from refiners.page.link import file_link, paper_link, web_link
from refiners.page.notice import Notices, status_of
from refiners.page.published import Plugin, spec_of
from refiners.page.publisher import Fact, publisher_change, publisher_facts
from refiners.page.slot_tree import KnownSlots, Places
from refiners.page.text import clipped, size_of

T = TypeVar("T")
LIMITS: Final = (60, 12, 3)
"""The most items of each list on a page: the next limit is used if the page becomes too large."""


class Part(NamedTuple):
    """The first items of a list, and how many are left out."""

    items: tuple[Any, ...]
    left: int


class File(NamedTuple):
    """A file of weights with its pins."""

    name: str
    source: str
    link: str
    path: str
    revision: str
    sha256: str
    size: str
    license: str
    terms: str
    format: str


class Version(NamedTuple):
    """A release, and how its manifest differs from the one before."""

    number: str
    core: str
    status: str
    reasons: tuple[str, ...]
    publisher: str
    """The new publisher and the one before, if the release has another; empty otherwise."""
    changes: Part
    is_first: bool


class Sheet(NamedTuple):
    """Everything that the page of a plugin shows besides its card."""

    is_readable: bool
    """Whether this version of Refiners knows the schema of the manifest."""
    summary: str
    aliases: Part
    facts: tuple[Fact, ...]
    publisher: tuple[Fact, ...]
    install: str
    python: str
    shell: tuple[str, ...]
    places: Part
    offered: Part
    """The slots that a model offers."""
    advice: tuple[tuple[tuple[str, ...], tuple[Fact, ...]], ...]
    inputs: Part
    externals: Part
    conflicts: Part
    files: Part
    unpinned: int
    checks: Part
    versions: Part


def part(items: Sequence[T], limit: int) -> Part:
    """Returns the first items of a list."""
    return Part(tuple(items[:limit]), max(0, len(items) - limit))


def sheet_of(card: Card, slots: KnownSlots, notices: Notices, limit: int = LIMITS[0]) -> Sheet:
    """Returns the facts of a page.

    Args:
        card: The plugin in lists.
        slots: The slots of known base models.
        notices: The advisories of the catalog.
        limit: The most items of each list.
    """
    plugin, spec = card.plugin, card.plugin.spec
    adapter = spec if isinstance(spec, AdapterSpec) else None
    files = [*_files(spec)]
    places: Sequence[Places] = slots.places(adapter) if adapter else ()
    return Sheet(
        is_readable=spec is not None,
        summary=clipped(plugin.entry.summary, 1000),
        aliases=part([clipped(name, 90) for name in plugin.entry.aliases], limit),
        facts=(*_facts(card, spec),),
        publisher=publisher_facts(plugin.newest.publisher),
        install=f"pip install {plugin.entry.distribution}",
        python=python_lines(plugin),
        shell=shell_lines(plugin),
        places=part(places, min(limit, 6)),
        offered=part(
            slots.offered(plugin.entry.name, spec) if isinstance(spec, ModelSpec) else (), limit
        ),
        advice=_advice(adapter)[:limit],
        inputs=part([*adapter.input.items()] if adapter else [], limit),
        externals=part(_externals(adapter), limit),
        conflicts=part([clipped(name, 90) for name in adapter.conflicts] if adapter else [], limit),
        files=part(files, limit),
        unpinned=sum(UNKNOWN in (file.revision, file.sha256) for file in files),
        checks=part(card.conformance.checks if card.conformance else (), limit * 2),
        versions=Part((*_versions(plugin, notices, limit),), max(0, len(plugin.releases) - limit)),
    )


def _facts(card: Card, spec: Spec | None) -> Iterator[Fact]:
    plugin = card.plugin
    dist = plugin.entry.distribution
    yield Fact("Package", dist, f"https://pypi.org/project/{dist}/")
    yield Fact("Version", card.version)
    if isinstance(spec, ModelSpec):
        yield Fact("Family", clipped(spec.family, 60))
    if spec is not None:
        yield Fact("Licence of the code", clipped(spec.license, 80) or "not stated")
        weights = dict.fromkeys(
            clipped(f.license, 80) or "not stated" for f in spec.weights.values()
        )
        if weights:
            yield Fact("Licence of the weights", clipped(", ".join(weights), 240))
        if spec.paper:
            yield Fact("Paper", clipped(spec.paper, 120), paper_link(spec.paper))
        yield Fact("Needs", f"refiners_core API {clipped(spec.core_api, 60)}")


def _advice(spec: AdapterSpec | None) -> tuple[tuple[tuple[str, ...], tuple[Fact, ...]], ...]:
    """Returns the advice for each group of variants that share it, with the names of these."""
    groups: dict[tuple[Fact, ...], list[str]] = {}
    for variant in spec.variant if spec else ():
        advice = spec.advice_for(variant) if spec else None
        if advice is not None:
            table: dict[str, Any] = msgspec.to_builtins(advice)
            facts = tuple(fact for key, value in table.items() for fact in _advised(key, value))
            groups.setdefault(facts, []).append(clipped(variant.label, 60))
    is_common = spec is not None and [*map(len, groups.values())] == [len(spec.variant)]
    return tuple(
        (() if is_common else tuple(dict.fromkeys(labels))[:8], facts)
        for facts, labels in groups.items()
    )


def _advised(key: str, value: Any) -> Iterator[Fact]:
    label = clipped(key.replace("-", " "), 40)
    if key == "examples":
        for address in value[:8]:
            yield Fact("example", clipped(address, 120), web_link(address))
    elif key == "required":
        yield Fact(label, "yes: a generation follows it")
    elif isinstance(value, dict):
        yield Fact(label, ", ".join(f"{name} {number:g}" for name, number in value.items()))
    else:
        values = value if isinstance(value, list | tuple) else [value]
        texts = [f"{item:g}" if isinstance(item, float) else str(item) for item in values]
        joined = f"{' x '.join(texts)} pixels" if key == "size" else ", ".join(texts)
        yield Fact(label, clipped(joined, 400))


def _externals(spec: AdapterSpec | None) -> list[Fact]:
    facts: list[Fact] = []
    for name, item in spec.external.items() if spec else ():
        terms = ", ".join(text for text in (item.license, item.terms) if text)
        text = f"{item.summary} ({terms})" if terms else item.summary
        facts.append(Fact(clipped(name, 60), clipped(text, 400), web_link(item.home)))
    return facts


def _files(spec: Spec | None) -> Iterator[File]:
    for name, file in spec.weights.items() if spec else ():
        yield File(
            name=clipped(name, 60),
            source=clipped(file.source, 200),
            link=file_link(file),
            path=clipped(file.file or "", 200),
            revision=file.revision if file.scheme == "hf" else "",
            sha256=file.sha256,
            size=size_of(file.size),
            license=clipped(file.license, 80),
            terms=_terms(file),
            format=file.format,
        )


def _terms(file: WeightsFile) -> str:
    return "" if file.terms and file.terms in file.license else file.terms


def _versions(plugin: Plugin, notices: Notices, limit: int) -> Iterator[Version]:
    releases = plugin.releases[: limit + 1]
    for number, release in enumerate(releases[:limit]):
        known = notices.about(release, spec_of(release))
        core = release.spec.get("core-api", "")
        earlier = releases[number + 1 : number + 2]
        news = [change for before in earlier for change in changes(before.spec, release.spec)]
        yield Version(
            number=release.version,
            core=clipped(core, 60) if isinstance(core, str) else "",
            status=status_of(known),
            reasons=tuple(clipped(f"{n.id}: {n.reason}", 300) for n in known[:3]),
            publisher=publisher_change([r.publisher for r in (*earlier, release)]),
            changes=part(news, limit // 4 + 1),
            is_first=not earlier,
        )
