"""Reads manifests: turns their text into tables, or into the list of their faults."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from refiners.errors import ManifestError
from refiners.manifest.file_layout import FileTable, UserFile
from refiners.manifest.schema import (
    SCHEMA,
    UNKNOWN,
    AdapterSpec,
    FamilySpec,
    Manifest,
    ModelManifest,
    ModelSpec,
    WeightsFile,
)
from refiners.manifest.toml import TomlError, load_toml, parse_toml
from refiners.manifest.version import specifiers
from refiners_core.advice import advice_faults

if TYPE_CHECKING:
    from refiners.manifest.explain import ManifestFault, Place

_MANY: Final = 100
"""The number of contradictions that are reported, and of names that are suggested for one."""
_PART: Final = r"[<>]=?[0-9]{1,9}(\.[0-9]{1,9}){0,9}"
_SIMPLE: Final = re.compile(rf"{_PART}(,{_PART}){{0,9}}")
"""Version specifiers that are valid without a call of packaging."""

M = TypeVar("M", bound=Manifest)


def load_manifest(path: Path, kind: type[M], *, dist: str | None = None) -> M:
    """Reads and checks a manifest.

    Args:
        path: The file.
        kind: The manifest of one kind of plugins, such as `AdapterManifest`.
        dist: The distribution that ships the manifest, for messages.

    Raises:
        ManifestError: The manifest has faults; the error lists them with their lines.
    """
    try:
        table, text = load_toml(path)
    except TomlError as error:
        raise ManifestError(path, (_fault((), str(error)),), dist=dist) from error
    except OSError as error:
        raise ManifestError(path, (_fault((), f"cannot be read: {error}"),), dist=dist) from error
    manifest, faults = _converted(table, text, kind)
    if manifest is None:
        raise ManifestError(path, faults, dist=dist)
    return manifest


def parse(text: str, kind: type[M]) -> tuple[M | None, tuple[ManifestFault, ...]]:
    """Turns the text of a manifest into its tables, or into the list of its faults."""
    try:
        table = parse_toml(text)
    except TomlError as error:
        return None, (_fault((), str(error)),)
    return _converted(table, text, kind)


def _converted(
    table: dict[str, Any], text: str, kind: type[M]
) -> tuple[M | None, tuple[ManifestFault, ...]]:
    newer = table.get("schema")
    if isinstance(newer, int) and newer > SCHEMA:
        what = f"schema {newer} is newer than this version reads ({SCHEMA})"
        return None, _with_lines(
            [_fault(("schema",), what, "Try pip install -U refiners-core.")], text
        )
    try:
        manifest = msgspec.convert(table, kind)
    except msgspec.ValidationError:
        from refiners.manifest.explain import examine

        table, faults = examine(table, kind)
        if faults:
            return None, _with_lines(faults, text)
        manifest = msgspec.convert(table, kind)
    faults = [*islice(_contradictions(manifest), _MANY)]
    return (None, _with_lines(faults, text)) if faults else (manifest, ())


def _fault(place: Place, what: str, hint: str = "") -> ManifestFault:
    """Makes a fault; importing `explain` here keeps it off the common path."""
    from refiners.manifest.explain import ManifestFault

    return ManifestFault(place, what, hint)


def _with_lines(faults: list[ManifestFault], text: str) -> tuple[ManifestFault, ...]:
    from refiners.manifest.explain import with_lines

    return with_lines(faults, text)


def _contradictions(manifest: Manifest) -> Iterator[ManifestFault]:
    """Yields faults that types cannot express: dangling names, and files with missing keys."""
    if isinstance(manifest, ModelManifest):
        if not (manifest.model or manifest.family):
            yield _fault((), "it has neither a model nor a family", "Write [model.NAME].")
        for name, family in manifest.family.items():
            yield from _family(("family", name), family)
    for name, spec in manifest.tables.items():
        yield from _core_api((manifest.kind, name), spec.core_api)
        yield from _files((manifest.kind, name), spec.weights)
        for index, variant in enumerate(spec.variant if isinstance(spec, AdapterSpec) else ()):
            place = (manifest.kind, name, "variant", index, "weights")
            yield from _dangling(place, variant.files.values(), spec.weights)
        if isinstance(spec, AdapterSpec | ModelSpec) and spec.file is not None:
            asks = spec.file.asks if isinstance(spec, AdapterSpec) else ()
            yield from _layouts((manifest.kind, name, "file"), spec.file, spec.weights, asks)
        if isinstance(spec, AdapterSpec):
            yield from _advice((manifest.kind, name), spec)


def _family(place: Place, spec: FamilySpec) -> Iterator[ManifestFault]:
    """Yields the faults of a family, whose models have to be recognised by something."""
    yield from _core_api(place, spec.core_api)
    if spec.folder is None and not (spec.file and spec.file.layout):
        yield _fault(place, "nothing shows its models", 'State folder.files = ["config.json"].')
    for path in spec.folder.fields if spec.folder is not None else ():
        if not path.endswith(".json"):
            yield _fault((*place, "folder", "fields", path), "is not a JSON file")
    if spec.file is not None:
        yield from _layouts((*place, "file"), spec.file, spec.weights, ())


def _advice(place: Place, spec: AdapterSpec) -> Iterator[ManifestFault]:
    """Yields the faults of the advice for each variant, at the table that has the key."""
    for index, variant in enumerate(spec.variant):
        advice = spec.advice_for(variant)
        keys = () if variant.advice is None else variant.advice.keys
        for field, fault in () if advice is None else advice_faults(advice.fields):
            key = "required" if field == "is_required" else field
            where = ("variant", index, "advice") if key in keys else ("advice",)
            if index == 0 or where[0] == "variant":
                yield _fault((*place, *where, key.replace("_", "-")), fault)


def _dangling(place: Place, names: Iterable[str], known: Iterable[str]) -> Iterator[ManifestFault]:
    known = tuple(known)
    for name in names:
        if name not in known:
            from difflib import get_close_matches

            close = get_close_matches(name, known[:_MANY], n=1)
            guess = (
                f"Did you mean {close[0]!r}?"
                if close
                else f"Known: {', '.join(known[:_MANY]) or 'none'}."
            )
            yield _fault(place, f"no weights have the name {name!r}", guess)


def _layouts(
    place: Place, file: FileTable, weights: Iterable[str], asks: Iterable[str]
) -> Iterator[ManifestFault]:
    """Yields the faults of layouts: those that fit every file, and dangling names."""
    for index, layout in enumerate(file.layout):
        entry = (*place, "layout", index)
        if not (layout.keys or layout.any or layout.shapes or layout.metadata or layout.config):
            yield _fault(entry, "it would fit every file", 'State a condition: keys = ["..."].')
        yield from _dangling((*entry, "weights"), layout.weights.values(), weights)
        for name in layout.asks:
            if name not in asks:
                yield _fault((*entry, "asks"), f"asks has no table {name!r}")
    for name, ask in file.asks.items() if isinstance(file, UserFile) else ():
        entry = (*place, "asks", name)
        for choice, answer in ask.choices.items():
            where = (*entry, "choices", choice, "weights")
            yield from _dangling(where, answer.weights.values(), weights)
        if ask.default is not None and ask.default not in ask.choices:
            yield _fault((*entry, "default"), f"{ask.default!r} is not one of the choices")


def _core_api(place: Place, text: str) -> Iterator[ManifestFault]:
    if _SIMPLE.fullmatch(text):  # saves importing packaging in the common case
        return
    try:
        specifiers(text)
    except ValueError:
        what = f'{text!r} should be a version specifier such as ">=1.0,<2"'
        yield _fault((*place, "core-api"), what)


def _files(place: Place, weights: Mapping[str, WeightsFile]) -> Iterator[ManifestFault]:
    for name, file in weights.items():
        entry = (*place, "weights", name)
        if file.scheme == "hf" and file.file is None:
            yield _fault(entry, "'file' is missing", "Name the file in the repository.")
        if file.scheme == "pkg" and file.file is not None:
            yield _fault((*entry, "file"), "is for the Hub", 'Write source = "pkg:package/path".')
        if file.scheme != "hf" and file.sha256 == UNKNOWN:
            yield _fault(entry, "'sha256' is missing", "Only the Hub announces one: run sha256sum.")
