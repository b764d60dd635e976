"""Reads the notes of trainers and publishers about a file: its trigger words, strength and author.

Trainers write them into the header (ModelSpec 1.0.1 and the `ss_` keys of kohya's scripts), user
interfaces into JSON files beside it, and the Hub has the card of the repository. They inform; they
decide nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from refiners.manifest.file_layout import FileTable
from refiners.recognition.recogniser import Evidence

_LONGEST: Final = 5_000_000
"""The most characters of JSON text in metadata that are parsed."""
_MOST_WORDS: Final = 12
_OFTEN: Final = 0.9
"""The share of captions, relative to the most frequent tag, above which a tag is a trigger."""
_TEXTS: Final[Mapping[str, tuple[str, ...]]] = {
    "title": ("modelspec.title", "ss_output_name"),
    "author": ("modelspec.author",),
    "date": ("modelspec.date",),
    "license": ("modelspec.license", "license"),
    "description": ("modelspec.description", "description"),
    "usage": ("modelspec.usage_hint", "notes"),
    "architecture": ("modelspec.architecture", "ss_base_model_version", "base_model"),
    "trained on": ("ss_sd_model_name", "base_model_name_or_path"),
    "resolution": ("modelspec.resolution", "ss_resolution"),
    "prediction": ("modelspec.prediction_type",),
    "timesteps": ("modelspec.timestep_range",),
    "clip skip": ("modelspec.encoder_layer", "ss_clip_skip"),
    "preprocessor": ("modelspec.preprocessor",),
    "trainer": ("ss_network_module", "peft_type"),
}
"""The keys of metadata and configurations that hold a note, in order of preference."""
_TRIGGERS: Final = (
    "modelspec.trigger_phrase",
    "instance_prompt",
    "activation text",
    "trainedWords",
)
_STRENGTHS: Final = ("preferred weight", "recommended_weight")


def notes_of(evidence: Evidence) -> dict[str, str]:
    """Returns the texts about a file that its header and the files beside it have."""
    notes: dict[str, str] = {}
    for name, keys in _TEXTS.items():
        values = (_text(_find(evidence, key)) for key in keys)
        if value := next(filter(None, values), ""):
            notes[name] = value
    return notes


def trigger_words(evidence: Evidence) -> tuple[str, ...]:
    """Returns the words that a prompt should have, as far as a note or the captions show them.

    Without a note, the tags count that caption nearly all training images (`ss_tag_frequency`).
    """
    for key in _TRIGGERS:
        if words := [*_words(_find(evidence, key))]:
            return tuple(dict.fromkeys(words))[:_MOST_WORDS]
    return _frequent(_parsed(evidence.metadata.get("ss_tag_frequency")))


def strength_of(evidence: Evidence) -> float | None:
    """Returns the recommended strength; None if no note states one."""
    for key in _STRENGTHS:
        try:
            strength = float(_find(evidence, key))
        except (TypeError, ValueError):
            continue
        if strength:  # user interfaces write 0 for an empty field
            return strength
    return None


def values_of(
    file: FileTable, evidence: Evidence, numbers: Mapping[str, float]
) -> dict[str, tuple[float, ...]]:
    """Returns the numbers of a file that its reader declares, such as alphas.

    Args:
        file: The table of the reader.
        evidence: The header of the file.
        numbers: The values of its one-element tensors, as far as they were read.
    """
    values: dict[str, tuple[float, ...]] = {}
    for name, places in file.values.items():
        for place in places:
            scheme, _, rest = place.partition(":")
            if scheme == "metadata":
                key, _, field = rest.partition(":")
                value: Any = evidence.metadata.get(key)
                read = _fields(_parsed(value), field) if field else iter([value])
            elif scheme == "config":
                read = iter([evidence.config.get(rest)])
            else:
                read = iter([numbers.get(key) for key in evidence.names.matching(place)])
            if read_numbers := {number for value in read if (number := _number(value)) is not None}:
                values[name] = tuple(sorted(read_numbers))
                break
    return values


def _find(evidence: Evidence, key: str) -> Any:
    return evidence.metadata.get(key, evidence.config.get(key))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, cast("list[Any]", value)))
    is_plain = isinstance(value, str | int | float) and value not in ("None", "null")
    return " ".join(str(value).split()) if is_plain else ""


def _words(value: Any) -> Iterator[str]:
    texts = cast("list[Any]", value) if isinstance(value, list) else [value]
    for text in texts:
        if isinstance(text, str):
            yield from filter(None, map(str.strip, text.split(",")))


def _parsed(text: Any) -> Any:
    if not isinstance(text, str) or len(text) > _LONGEST:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _frequent(folders: Any) -> tuple[str, ...]:
    """Returns the tags that caption nearly all images, the most frequent first."""
    counts: Counter[str] = Counter()
    for tags in cast("dict[Any, Any]", folders).values() if isinstance(folders, dict) else ():
        for tag, count in cast("dict[Any, Any]", tags).items() if isinstance(tags, dict) else ():
            if isinstance(tag, str) and isinstance(count, int) and tag.strip():
                counts[tag.strip()] += count
    most = max(counts.values(), default=0)
    often = [tag for tag, count in counts.most_common(_MOST_WORDS) if count >= _OFTEN * most > 0]
    return tuple(often)


def _fields(table: Any, field: str) -> Iterator[Any]:
    """Yields the values of a field, which may have the name of a component before it."""
    for key, value in cast("dict[Any, Any]", table).items() if isinstance(table, dict) else ():
        if isinstance(key, str) and f".{key}".endswith(f".{field}"):
            yield value


def _number(value: Any) -> float | None:
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
