"""The facts of one plugin for lists, the matrix, the search and the feeds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from refiners.manifest.license_terms import NON_COMMERCIAL, terms_of
from refiners.manifest.pattern import UNKNOWN
from refiners.manifest.schema import AdapterSpec, Spec
from refiners.page.extras import Extras
from refiners.page.notice import Notice, Notices, status_of
from refiners.page.published import Conformance, Plugin, conformance_of
from refiners.page.text import clipped, size_of

_NAME: Final = 90
_FEW: Final = 8
"""The most bases and licences of a plugin in lists."""
_TEXT: Final = ("text_encoder", "cross_attention")
"""The parts of slots by which an adapter changes what the text does."""


class Card(NamedTuple):
    """One plugin in a list."""

    plugin: Plugin
    path: str
    name: str
    category: str
    summary: str
    dist: str
    version: str
    bases: tuple[str, ...]
    licenses: tuple[str, ...]
    """The licences of its code and of its weights."""
    terms: str
    """`non-commercial` if its code, a file or a dependency forbids commercial use."""
    status: str
    notices: tuple[Notice, ...]
    takes: str
    """The inputs of the adapter, and whether the user supplies its file."""
    scale: str
    """The advised scale."""
    has_mask: bool | None
    """Whether it acts on regions of an image; None if its sources were not read."""
    is_text_free: bool | None
    """Whether it leaves the text encoder and the attention to the text alone; None for others."""
    weights: str
    """The size of its smallest complete set of files."""
    is_pinned: bool
    """Whether every file has a commit and a hash."""
    conformance: Conformance | None


def card_of(plugin: Plugin, notices: Notices, extras: Extras) -> Card:
    """Returns the facts of a plugin."""
    spec, entry = plugin.spec, plugin.entry
    known = notices.about(plugin.newest, spec)
    code = plugin.newest.spec.get("license", "")
    licenses = [code if isinstance(code, str) else ""]
    licenses += [file.license for file in spec.weights.values()] if spec else []
    return Card(
        plugin=plugin,
        path=plugin.path,
        name=clipped(entry.name, _NAME),
        category=clipped(plugin.category, 40),
        summary=clipped(entry.summary),
        dist=entry.distribution,
        version=entry.version,
        bases=tuple(clipped(base, 40) for base in entry.bases[:_FEW]),
        licenses=tuple(dict.fromkeys(clipped(text, 60) for text in licenses if text))[:_FEW],
        terms=_terms(spec, licenses[0]),
        status=status_of(known),
        notices=known,
        takes=clipped(", ".join(_taken(spec)), 80),
        scale=_scale(spec),
        has_mask=_has_mask(plugin, extras),
        is_text_free=_is_text_free(spec),
        weights=_weights(spec),
        is_pinned=_is_pinned(spec),
        conformance=_conformance(plugin, extras),
    )


def _terms(spec: Spec | None, code: str) -> str:
    terms = {terms_of(code)}
    if spec is not None:
        terms |= {file.terms for file in spec.weights.values()}
    if isinstance(spec, AdapterSpec):
        terms |= {external.terms for external in spec.external.values()}
    return NON_COMMERCIAL if NON_COMMERCIAL in terms else ""


def _taken(spec: Spec | None) -> Iterator[str]:
    if isinstance(spec, AdapterSpec):
        yield from spec.input
        if spec.file is not None:
            yield "a file of yours"


def _scale(spec: Spec | None) -> str:
    advice = spec.advice if isinstance(spec, AdapterSpec) else None
    strength = advice.strength if advice else None
    if strength is None:
        return ""
    ends = (strength.least, strength.most)
    known = [end for end in ends if end is not None and end != strength.usual]
    spread = f" ({' to '.join(f'{end:g}' for end in ends if end is not None)})" if known else ""
    return f"{strength.usual:g}{spread}"


def _has_mask(plugin: Plugin, extras: Extras) -> bool | None:
    facts = extras.classes.get(plugin.entry.distribution)
    if facts is None or not isinstance(plugin.spec, AdapterSpec):
        return None
    return facts.flag(plugin.spec.factory, "takes_mask")


def _is_text_free(spec: Spec | None) -> bool | None:
    if not isinstance(spec, AdapterSpec) or not any(variant.targets for variant in spec.variant):
        return None
    slots = {target.slot for variant in spec.variant for target in variant.targets}
    return not any(part in _TEXT for slot in slots for part in slot.split("."))


def _weights(spec: Spec | None) -> str:
    if spec is None or not spec.weights:
        return "none" if isinstance(spec, AdapterSpec) and spec.file is None else ""
    if not isinstance(spec, AdapterSpec):
        sizes = [file.size for file in spec.weights.values()]
        return size_of(sum(size for size in sizes if size)) if all(sizes) else ""
    sets = [[spec.weights[name].size for name in {*variant.files.values()} if name in spec.weights]
            for variant in spec.variant]  # fmt: skip
    totals = [sum(size for size in sizes if size) for sizes in sets if sizes and all(sizes)]
    return size_of(min(totals)) if totals else ""


def _is_pinned(spec: Spec | None) -> bool:
    return spec is not None and all(
        file.sha256 != UNKNOWN and (file.scheme != "hf" or file.revision != UNKNOWN)
        for file in spec.weights.values()
    )


def _conformance(plugin: Plugin, extras: Extras) -> Conformance | None:
    entry, newest = plugin.entry, plugin.newest
    if (report := conformance_of(newest.conformance)) is not None:
        return report
    known = [conformance_of(r) for r in extras.reports.get(entry.distribution, ())]
    fitting = [r for r in known if r is not None and r.name in (entry.name, entry.id)]
    return fitting[0] if fitting else None
