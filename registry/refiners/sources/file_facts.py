"""The facts about a file of a user that its header and the texts around it show, without torch."""

from __future__ import annotations

import math
import posixpath
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from refiners.choose.policy import Guard
from refiners.errors import RefinersError
from refiners.hub.card import card_fields
from refiners.hub.client import Hub
from refiners.hub.tensor_header import START, Header
from refiners.manifest.license_terms import terms_of
from refiners.manifest.pattern import LOCAL, UNKNOWN
from refiners.recognition.note import notes_of, strength_of, trigger_words, values_of
from refiners.recognition.number import numbers_in
from refiners.recognition.recogniser import Evidence, Recognised
from refiners.sources.given import GivenFile, candidates, examine, locate
from refiners.sources.place import INDEX, HubPlace, read_table, read_text
from refiners.sources.recognition import hint_for, identify_kind

_MOST: Final = 24
"""The most files of a folder or a repository that are described."""
_CARD: Final = "README.md"
_NOTES: Final = (".civitai.info", ".json")
"""The endings of files beside a file of weights in which user interfaces keep notes."""


def facts_of_files(what: str, hub: Hub, guard: Guard | None = None) -> list[dict[str, Any]]:
    """Returns the facts about a file, or about each file of weights in a folder.

    Args:
        what: A path, or an address on the Hub.
        hub: The Hub, of whose files the headers are requested.
        guard: The policy rules, checked before the Hub is asked.

    Raises:
        RefinersError: The file does not exist, or is not a safetensors file.
    """
    place, name = locate(what, hub, guard)
    if name:
        return [facts_of(examine(place.written(name), place, name, hub), hub)]
    names = [path for level in candidates(place) for path in level][:_MOST]
    facts: list[dict[str, Any]] = []
    for path in names:
        try:
            facts.append(facts_of(examine(place.written(path), place, path, hub), hub))
        except RefinersError as error:
            facts.append({"file": place.written(path), "error": error.message})
    return facts


def facts_of(file: GivenFile, hub: Hub) -> dict[str, Any]:
    """Returns the facts about a file by name; empty ones are left out."""
    evidence = replace(file.evidence, config={**_fields_beside(file, hub), **file.config})
    fits = () if file.header is None else identify_kind(evidence)
    notes = notes_of(evidence)
    license = file.file.license or notes.get("license", "")
    facts: dict[str, Any] = {
        "file": file.given,
        **_kind(file, fits),
        **({} if file.header is None else _contents(file, file.header, fits, evidence, hub)),
        "trigger_words": list(trigger_words(evidence)),
        "strength": strength_of(evidence),
        "size": file.file.size,
        "sha256": "" if file.file.sha256 == UNKNOWN else file.file.sha256,
        "license": license,
        "terms": terms_of(license, file.file.commercial),
        "notes": notes,
        "metadata": {} if file.header is None else {
            key: value for key, value in file.header.metadata.items() if len(value) <= 200
        },
    }  # fmt: skip
    return {name: fact for name, fact in facts.items() if fact not in ("", None, [], {})}


def _kind(file: GivenFile, fits: tuple[Recognised, ...]) -> dict[str, Any]:
    """Returns the kind of a file, its reader, and the next step."""
    if file.header is None:
        return {"kind": "a pickle", "next": "Use a safetensors file, or rewrite it once."}
    if not fits:
        return {"kind": "unknown", "holds": [*file.header][:3]}
    fit = fits[0]
    is_read = fit.is_readable
    readers = [other.reader.id for other in fits if other.is_readable]
    return {
        "kind": fit.what,
        "base": list(fit.bases),
        "layout": fit.layout.name,
        "reader": readers[0] if len(readers) == 1 else readers,
        "refused": fit.layout.refuses,
        "asks": list(fit.layout.asks),
        "next": f"--adapter {file.given}" if is_read and len(readers) == 1
        else f"--adapter {readers[0]}={file.given}" if is_read
        else hint_for(file.given, fits),
    }  # fmt: skip


def _contents(
    file: GivenFile,
    header: Header,
    fits: tuple[Recognised, ...],
    evidence: Evidence,
    hub: Hub,
) -> dict[str, Any]:
    """Returns what the tensors of a file show: facts, numbers, counts and dtypes."""
    facts: dict[str, Any] = {}
    if fits:
        facts |= {name: list(values) for name, values in fits[0].facts.items()}
        table = fits[0].reader.file
        facts |= {
            name: [int(value) if value.is_integer() else value for value in values]
            for name, values in values_of(table, evidence, _numbers(file, header, fits[0])).items()
        }
    counts = Counter(tensor.dtype for tensor in header.tensors.values())
    return {
        "facts": facts,
        "tensors": len(header),
        "parameters": sum(math.prod(shape) for shape in header.values()),
        "dtypes": [dtype for dtype, _ in counts.most_common()],
    }


def _numbers(file: GivenFile, header: Header, fit: Recognised) -> Mapping[str, float]:
    """Returns the one-element tensors that a reader declares; of a file on this machine only."""
    patterns = [
        place
        for places in fit.reader.file.values.values()
        for place in places
        if not place.startswith(("metadata:", "config:"))
    ]
    if not patterns or file.file.scheme != LOCAL or file.name.endswith(INDEX):
        return {}
    names = [name for pattern in patterns for name in file.evidence.names.matching(pattern)]
    start = START + header.length
    with file.file.local_path.open("rb") as opened:

        def read(first: int, last: int) -> bytes:
            opened.seek(start + first)
            return opened.read(last - first)

        return numbers_in(header, names, read)


def _fields_beside(file: GivenFile, hub: Hub) -> Mapping[str, Any]:
    """Returns the fields of the card of a repository, or of notes beside a local file."""
    if isinstance(file.place, HubPlace):
        top = HubPlace(file.place.address._replace(path=""), file.place.contents)
        try:
            card = read_text(top.file(_CARD), hub) if top.has(_CARD) else None
        except RefinersError:  # a card only informs
            card = None
        return dict(card_fields(card)) if card else {}
    stem = posixpath.splitext(file.name)[0]
    fields: dict[str, Any] = {}
    for name in (f"{stem}{ending}" for ending in _NOTES):
        if file.place.has(name):
            fields |= read_table(file.place.file(name), hub)
    return fields
