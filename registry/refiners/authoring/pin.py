"""Fills the pins of a manifest: commit, hash, size and shapes of each file, as the Hub lists it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NamedTuple

from refiners.authoring.pin_source import Facts, HubFiles, facts_in_package
from refiners.authoring.plugin_folder import manifests_in
from refiners.authoring.toml_edit import Edit, edited
from refiners.errors import CacheError, ManifestError, OptionError
from refiners.host.disk import PUBLIC, write_whole
from refiners.host.shell import quoted
from refiners.hub.client import Hub
from refiners.manifest.explain import ManifestFault
from refiners.manifest.reader import parse
from refiners.manifest.schema import MANIFESTS, UNKNOWN, AdapterManifest, Manifest
from refiners.manifest.toml import LARGEST, TomlError, decoded, parse_toml

_SECTIONS: Final = ("adapter", "model", "family", "preprocessor")
_ORDER: Final = ("source", "file", "revision", "sha256", "size", "shapes")
"""The order of the keys of a file; a new key goes behind the last one before it that exists."""
_BOM: Final = b"\xef\xbb\xbf"


class PinChange(NamedTuple):
    """One pin that differs from what the Hub lists now."""

    file: str
    """The adapter or model and its file, such as `edge-guide.weights.sd15`."""
    key: str
    old: str
    """The present value; empty if the pin is missing."""
    new: str

    @property
    def is_missing(self) -> bool:
        """Whether the manifest has no value yet."""
        return self.old in ("", UNKNOWN)


class PinnedManifest(NamedTuple):
    """A manifest with current pins, which is not written yet."""

    path: Path
    changes: tuple[PinChange, ...]
    before: bytes
    after: bytes
    manifest: Manifest

    def check(self) -> None:
        """Checks that the file may be replaced.

        Raises:
            CacheError: The file is read-only, or is gone.
        """
        try:
            refuse_read_only(self.path)
        except OSError as error:
            raise CacheError(
                f"{self.path} cannot be read: {error}.", hint="Run refiners pin again."
            ) from error

    def write(self) -> None:
        """Replaces the file in one step, unless it changed since it was read.

        Raises:
            CacheError: The file cannot be written, is read-only, or was changed meanwhile.
        """
        self.check()
        try:
            if self.path.read_bytes() != self.before:
                raise CacheError(
                    f"{self.path} was changed while its files were looked up.",
                    hint="Run refiners pin again.",
                )
            mode = self.path.stat().st_mode & 0o777
            write_whole(self.path.resolve(), self.after, mode or PUBLIC)
        except OSError as error:
            raise CacheError(
                f"{self.path} cannot be written: {error}.", hint="Fix its permissions."
            ) from error


def refuse_read_only(path: Path) -> None:
    """Refuses to replace a file whose author has write-protected it.

    Raises:
        CacheError: The file is read-only.
        OSError: The file cannot be looked at.
    """
    if not path.stat().st_mode & stat.S_IWUSR or not os.access(path, os.W_OK):
        protect = ("attrib", "-r") if os.name == "nt" else ("chmod", "u+w")
        raise CacheError(
            f"{path} is read-only.", hint=f"To let it be changed: {quoted(*protect, path)}"
        )


def pinned_manifests(
    path: Path, hub: Hub, *, variant: str = "", revision: str = ""
) -> tuple[PinnedManifest, ...]:
    """Returns the manifests of a plugin with current pins; writes nothing.

    Args:
        path: A manifest, or the folder of a plugin with its pyproject.toml.
        hub: The Hub that has the files.
        variant: The label of a variant, whose files alone are pinned; all if empty.
        revision: The branch, tag or commit to pin. By default the main branch, and then a pin
            stays as long as its commit has the same bytes as the branch.

    Raises:
        OptionError: The path is not of a plugin, no variant has the label, or a file is a pickle.
        ManifestError: The manifest has other faults than missing pins.
        NetworkError, IntegrityError: The Hub does not answer, or contradicts itself.
    """
    files = HubFiles(hub, revision)
    places = manifests_in(path)
    tables = {place: _read(place) for place in places}
    wanted: dict[Path, frozenset[tuple[str, str]] | None] = dict.fromkeys(places)
    if variant:
        wanted = {place: _of_variant(values, variant) for place, (_, _, values) in tables.items()}
        if not any(wanted.values()):
            labels = sorted({label for _, _, v in tables.values() for _, label, _ in _variants(v)})
            close = get_close_matches(variant, labels, n=1)
            raise OptionError(
                f"no variant in {path} has the label {variant!r}.",
                hint=f"Did you mean --variant {close[0]}?"
                if close
                else f"Variants: {', '.join(labels) or 'none'}.",
            )
    return tuple(_pinned(place, *tables[place], files, wanted[place]) for place in places)


def _read(path: Path) -> tuple[bytes, str, dict[str, Any]]:
    try:
        raw = path.read_bytes()
        if len(raw) > LARGEST:
            raise TomlError(f"is larger than {LARGEST} bytes")
        text = decoded(raw)
        return raw, text, parse_toml(text)
    except (OSError, TomlError) as error:
        raise ManifestError(path, (ManifestFault((), str(error)),)) from error


def _pinned(
    path: Path,
    raw: bytes,
    text: str,
    values: Mapping[str, Any],
    files: HubFiles,
    wanted: frozenset[tuple[str, str]] | None,
) -> PinnedManifest:
    edits: list[Edit] = []
    changes: list[PinChange] = []
    for section, name, role, table in _files(values):
        if wanted is not None and (name, role) not in wanted:
            continue
        label = f"{name}.weights.{role}"
        source = str(table["source"])
        if source.startswith("hf:"):
            facts = files.facts(label, table)
        elif source.startswith("pkg:"):
            facts = facts_in_package(label, source, path.absolute().parent.parent)
        else:
            continue
        for key, value in _differences(table, facts, label):
            place = (section, name, "weights", role, *key)
            is_new = key[-1] not in table and len(key) == 1
            edits.append(Edit(place, value, _anchor(table, place) if is_new else ""))
            old = table.get(key[0], "") if len(key) == 1 else table["shapes"][key[1]]
            changes.append(PinChange(label, ".".join(key), str(old), str(value)))
    try:
        after = edited(text, edits)
    except TomlError as error:
        raise ManifestError(path, (ManifestFault((), str(error)),)) from error
    kind = {f"{kind}.toml": manifest for kind, manifest in MANIFESTS.items()}
    manifest, faults = parse(after, kind.get(path.name, AdapterManifest))
    if manifest is None:
        raise ManifestError(path, faults)
    content = after.encode()
    content = _BOM + content if raw.startswith(_BOM) else content
    return PinnedManifest(path, tuple(changes), raw, content, manifest)


def _differences(
    table: Mapping[str, Any], facts: Facts, label: str
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key in ("file", "revision", "sha256", "size"):
        value = getattr(facts, key)
        if value is not None and table.get(key) != value:
            yield (key,), value
    shapes = table.get("shapes")
    if not isinstance(shapes, dict) or not shapes:
        return
    header = facts.header()
    for name, dimensions in shapes.items():
        if name not in header:
            close = get_close_matches(name, [*header][:1000], n=1)
            raise OptionError(
                f"{label} has no tensor {name!r}; the file has {len(header)} tensors.",
                hint=f"Did you mean {close[0]!r}?" if close else "Remove it from shapes.",
            )
        shape = [*header[name]]
        if len(dimensions) != len(shape):
            yield ("shapes", name), shape
        elif any(isinstance(d, int) and d != n for d, n in zip(dimensions, shape, strict=True)):
            numbers = zip(dimensions, shape, strict=True)
            yield ("shapes", name), [n if isinstance(d, int) else d for d, n in numbers]


def _anchor(table: Mapping[str, Any], place: tuple[str, ...]) -> str:
    """Returns the key of the file behind which a new one belongs; it exists in the text."""
    before = _ORDER[: _ORDER.index(place[-1])]
    return next(key for key in reversed(before) if key in table)


def _files(values: Mapping[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Yields section, name, role and table of each file that has a source."""
    for section, name, spec in _specs(values):
        weights = spec.get("weights")
        for role, table in weights.items() if isinstance(weights, dict) else ():
            if isinstance(table, dict) and isinstance(table.get("source"), str):
                yield section, name, role, table


def _specs(values: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for section in _SECTIONS:
        tables = values.get(section)
        for name, spec in tables.items() if isinstance(tables, dict) else ():
            if isinstance(spec, dict):
                yield section, name, spec


def _variants(values: Mapping[str, Any]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yields the adapter, the label and the roles of the files of each variant."""
    for _, name, spec in _specs(values):
        for variant in spec.get("variant") or ():
            if not isinstance(variant, dict):
                continue
            weights = variant.get("weights", {})
            roles = (weights,) if isinstance(weights, str) else tuple(map(str, weights.values()))
            single = weights if isinstance(weights, str) else ""
            label = variant.get("name") or single or variant.get("base") or "any base"
            yield name, str(label), roles
            if (base := variant.get("base")) and base != label:
                yield name, str(base), roles


def _of_variant(values: Mapping[str, Any], label: str) -> frozenset[tuple[str, str]]:
    return frozenset(
        (name, role) for name, of, roles in _variants(values) if of == label for role in roles
    )
