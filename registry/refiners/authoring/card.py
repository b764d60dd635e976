"""Writes the fields of a model card that make an adapter findable on the Hub, from its manifest."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from refiners.authoring.card_text import fields_of, with_fields
from refiners.authoring.hub_license import hub_license
from refiners.authoring.pin import refuse_read_only
from refiners.errors import CacheError, OptionError
from refiners.host.disk import PUBLIC, open_regular, write_whole
from refiners.host.shell import quoted
from refiners.manifest.schema import AdapterSpec, Manifest, Spec, Variant
from refiners.sources.recognition import repositories_of

LIBRARY: Final = "refiners-core"
"""The library of a new card, and the tag of every card."""
FOUND_BY: Final = ("base_model", "base_model_relation", "library_name", "license", "tags")
"""The fields by which the Hub finds an adapter."""
_LARGEST: Final = 5_000_000
"""The maximum size of a card in bytes."""


class CardChange(NamedTuple):
    """A field of a card that differs from the manifest."""

    field: str
    old: Any
    new: Any


class Card(NamedTuple):
    """A card with current fields, which is not written yet."""

    path: Path
    changes: tuple[CardChange, ...]
    after: str

    def check(self) -> None:
        """Checks that the file can be written, as far as that shows without writing.

        Raises:
            CacheError: The file is read-only, or no folder can be made for it.
        """
        if self.path.exists():
            refuse_read_only(self.path)
        folder = next(folder for folder in self.path.absolute().parents if folder.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise CacheError(
                f"{self.path} cannot be written: nothing can be made in {folder}.",
                hint="Name a file in another folder.",
            )

    def write(self) -> None:
        """Replaces the file in one step, or makes it and its folder.

        Raises:
            CacheError: The file cannot be written, or is read-only.
        """
        try:
            self.check()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            mode = self.path.stat().st_mode & 0o777 if self.path.exists() else PUBLIC
            write_whole(self.path.resolve(), self.after.encode(), mode)
        except OSError as error:
            raise CacheError(
                f"{self.path} cannot be written: {error}.", hint="Name a file in another folder."
            ) from error


def updated_card(
    path: Path, manifests: Sequence[tuple[Path, Manifest]], *, variant: str = ""
) -> Card:
    """Returns a card with the fields that follow from manifests; writes nothing.

    The author's text, other fields, tags and pictures stay.

    Args:
        path: The card; it need not exist.
        manifests: The manifests, with their paths.
        variant: The label of the variant whose files the repository has; all if empty.

    Raises:
        OptionError: The path is not that of a card, the card cannot be read or changed, or the
            files have several licences.
    """
    is_manifest = path.exists() and any(path.samefile(place) for place, _ in manifests)
    if path.suffix.lower() != ".md" or is_manifest:
        raise OptionError(
            f"{path} is not a model card{', but a manifest' if is_manifest else ''}.",
            hint=f"Name a file that ends in .md: --card {quoted(path.parent / 'README.md')}",
        )
    try:
        text = _content(path).decode() if path.exists() else ""
        before = fields_of(text)
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise OptionError(
            f"{path} cannot be read as a model card: {error}.",
            hint="Correct the lines between the two rulers (---), or name another file.",
        ) from error
    fields = _fields(manifests, before, path.parent, variant)
    try:
        after = with_fields(text or _body(manifests), fields)
    except ValueError as error:
        raise OptionError(f"{path}: {error}.", hint="Write one field a line.") from error
    changes = (
        CardChange(name, before.get(name), value)
        for name, value in fields.items()
        if before.get(name) != value
    )
    return Card(path, tuple(changes), after)


def _content(path: Path) -> bytes:
    with open_regular(path) as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise OptionError(
            f"{path} is larger than {_LARGEST:,} bytes, the most of a model card.",
            hint="Shorten it, or name another file.",
        )
    return content


def _body(manifests: Sequence[tuple[Path, Manifest]]) -> str:
    """Returns the text of a card that does not exist yet."""
    specs = [(name, spec) for _, manifest in manifests for name, spec in manifest.tables.items()]
    return "".join(f"# {name}\n\n{spec.summary}\n" for name, spec in specs[:1])


def _fields(
    manifests: Sequence[tuple[Path, Manifest]],
    before: Mapping[str, Any],
    folder: Path,
    variant: str,
) -> dict[str, Any]:
    """Returns the fields that follow from manifests, in the order of a new card."""
    specs: list[tuple[str, Spec]] = [
        (name, spec) for _, manifest in manifests for name, spec in manifest.tables.items()
    ]
    variants = [pair for _, spec in specs for pair in _variants(spec, variant)]
    adapters = [spec for _, spec in specs if isinstance(spec, AdapterSpec)]
    fields: dict[str, Any] = {}
    bases = dict.fromkeys(v.base for _, v in variants if v.base)
    repositories = [repository for base in bases if base and (repository := _repository(base))]
    if repositories:
        fields["base_model"] = repositories[0] if len(repositories) == 1 else repositories
    if adapters:
        fields["base_model_relation"] = "adapter"
    fields["library_name"] = before.get("library_name") or LIBRARY
    kinds = [spec.kind for spec in adapters if spec.kind]
    tags = before.get("tags")
    known = cast("list[Any]", tags) if isinstance(tags, list) else [tags] if tags else []
    fields["tags"] = [*dict.fromkeys([*known, LIBRARY, *kinds, *(base for base in bases if base)])]
    fields |= _license(specs, variants, before, folder)
    advice = [spec.advice_for(v) for spec, v in variants]
    words = dict.fromkeys(word for table in advice if table for word in table.trigger_words)
    if words:
        fields["instance_prompt"] = ", ".join(words)
    prompt = ", ".join(words) or "-"
    pictures = {url: prompt for table in advice if table for url in table.examples}
    for place, _ in manifests:
        pictures |= _packaged_examples(place.parent / "examples", folder)
    if pictures:
        fields["widget"] = _widget(before.get("widget"), pictures)
    return fields


def _repository(base: str) -> str:
    """Returns the repository of a base model; empty if none is known on this machine."""
    try:
        return repositories_of(base)[0]
    except OptionError:
        return ""


def _variants(spec: Spec, label: str) -> Iterator[tuple[AdapterSpec, Variant]]:
    if isinstance(spec, AdapterSpec):
        yield from ((spec, v) for v in spec.variant if not label or label in (v.label, v.base))


def _license(
    specs: list[tuple[str, Spec]],
    variants: list[tuple[AdapterSpec, Variant]],
    before: Mapping[str, Any],
    folder: Path,
) -> dict[str, str]:
    """Returns the fields for the licence of the weights."""
    roles = {(id(spec), role) for spec, v in variants for role in v.files.values()}
    files = [
        file
        for _, spec in specs
        for role, file in spec.weights.items()
        if not variants or (id(spec), role) in roles
    ]
    licenses = [*dict.fromkeys(file.license for file in files if file.license)]
    if len(licenses) > 1:
        raise OptionError(
            f"the files have several licences, {', '.join(licenses)}, and a card has one.",
            hint="Add --variant NAME for the variant whose files the repository has.",
        )
    if not licenses:
        return {}
    identifier = hub_license(licenses[0])
    if identifier is not None:
        return {"license": identifier}
    name = "-".join(licenses[0].lower().split())
    link = "LICENSE" if (folder / "LICENSE").is_file() else before.get("license_link")
    fields = {"license": "other", "license_name": name}
    return fields | ({"license_link": str(link)} if link else {})


def _packaged_examples(examples: Path, folder: Path) -> dict[str, str]:
    """Returns the pictures of the package's examples in the folder of the card, with a caption."""
    pictures: dict[str, str] = {}
    for picture in sorted(examples.glob("*.png")):
        copy = folder / "examples" / picture.name
        if copy.is_file() or examples.resolve() == copy.parent.resolve():
            pictures[f"examples/{picture.name}"] = _caption(picture.with_suffix(".py"))
    return pictures


def _caption(script: Path) -> str:
    try:
        text = ast.get_docstring(ast.parse(script.read_text("utf-8"))) or ""
    except (OSError, SyntaxError, ValueError):
        text = ""
    return text.partition("\n")[0] or script.stem


def _widget(known: Any, pictures: Mapping[str, str]) -> list[Any]:
    """Returns the gallery: the author's entries, and each picture that has none yet."""
    entries: list[Any] = [*known] if isinstance(known, list) else []
    shown = {
        entry["output"].get("url")
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("output"), dict)
    }
    new = [(url, text) for url, text in pictures.items() if url not in shown]
    return [*entries, *({"text": text, "output": {"url": url}} for url, text in new)]
