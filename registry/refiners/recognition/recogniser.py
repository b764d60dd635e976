"""Recognises a file by its header: a pure function of names, shapes, texts and manifests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast

from refiners.manifest.file_layout import ANY, REST, FileTable, Layout, Size
from refiners.recognition.key_names import KeyNames, is_match

TRAINING, ARCHITECTURE = "refiners.training", "modelspec.architecture"
"""The keys of metadata of files of `refiners train`: the configuration as JSON, without paths of
the machine, and the names of base and adapter."""
Shape = tuple[int, ...]
Facts = Mapping[str, tuple[int, ...]]
"""The values of each fact that shapes show: several if tensors differ."""


@dataclass(frozen=True)
class Evidence:
    """Everything that is known of a file without reading a tensor.

    Args:
        shapes: The shapes of its tensors by name.
        metadata: The texts in its header.
        config: The fields of the JSON files beside it.
    """

    shapes: Mapping[str, Shape]
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @cached_property
    def names(self) -> KeyNames:
        """The names of the tensors."""
        return KeyNames(self.shapes)

    @property
    def kind(self) -> str:
        """The name of the adapter that `refiners train` trained; empty for files of others."""
        is_ours = TRAINING in self.metadata
        return self.metadata.get(ARCHITECTURE, "").rpartition("/")[2] if is_ours else ""


class Base(NamedTuple):
    """A base model, as far as a file can name it."""

    name: str
    facts: Mapping[str, Any]
    named_as: Mapping[str, Sequence[str]]
    """Patterns of the values that name it, by key of metadata or configuration."""


class Reader(NamedTuple):
    """A table of layouts, and the plugin that it belongs to."""

    file: FileTable
    kind: Literal["adapter", "model", "published", "known"]
    """An installed adapter or model, an adapter that is published, or a kind without a reader."""
    name: str = ""
    dist: str = ""
    hint: str = ""
    """The next step for a kind without a reader."""

    @property
    def id(self) -> str:
        """The canonical name, `distribution:name`."""
        return f"{self.dist}:{self.name}"


@dataclass(frozen=True)
class Recognised:
    """A file that has a layout of a reader."""

    reader: Reader
    layout: Layout
    facts: Facts
    bases: tuple[str, ...]
    """The bases that it may be for; empty if the file leaves it open."""
    method: str = ""
    """The kind of file in words that its tensors show in any layout; empty if they do not."""
    trained_on: str = ""
    """The model that it was trained on, as the configuration beside it names it."""

    @property
    def what(self) -> str:
        """The kind of file in words, such as `a LoRA`."""
        return (
            self.method
            or self.layout.what
            or self.reader.file.what
            or f"a file of {self.reader.name}"
        )

    @property
    def is_readable(self) -> bool:
        """Whether an installed adapter reads it."""
        return self.reader.kind == "adapter" and not self.layout.refuses

    def __str__(self) -> str:
        bases = f" for {' or '.join(self.bases)}" if self.bases else ""
        return f"{self.what}{bases} ({self.layout.name})"


def recognise(
    evidence: Evidence, readers: Iterable[Reader], bases: Sequence[Base]
) -> tuple[Recognised, ...]:
    """Returns the readers whose layouts fit a file best.

    Of the layouts of one reader, one that refuses the file goes first, then the one with the most
    conditions. Of several readers, those that do not refuse the file remain, and of these the one
    that `refiners train` trained, which its metadata name, else the ones whose layout has the most
    conditions.

    Args:
        evidence: The header of the file and the configurations beside it.
        readers: The readers to choose from.
        bases: The bases that facts and metadata can name.
    """
    fits: list[Recognised] = []
    for reader in readers:
        bound = [(layout, facts) for layout in reader.file.layout
                 if (facts := _fit(layout, evidence)) is not None]  # fmt: skip
        if bound:
            layout, facts = max(bound, key=lambda fit: (bool(fit[0].refuses), fit[0].conditions))
            known = facts | _shown(reader.file, evidence, facts)
            named = _bases(layout, known, evidence, bases)
            method = _method(reader.file, evidence)
            origin = evidence.config.get("base_model_name_or_path")
            origin = origin if isinstance(origin, str) else ""
            fits.append(Recognised(reader, layout, known, named, method, origin))
    fits = [fit for fit in fits if not fit.layout.refuses] or fits
    fits = [fit for fit in fits if fit.reader.name == evidence.kind] or fits
    most = max((fit.layout.conditions for fit in fits), default=0)
    return tuple(fit for fit in fits if fit.layout.conditions == most)


def misfit(recognised: Recognised, base: str | None, facts: Mapping[str, Any]) -> str:
    """Returns why a file does not suit a model, as a clause; empty if nothing contradicts it.

    Args:
        recognised: The file.
        base: The base of the model.
        facts: The facts of the model.
    """
    is_confirmed = False
    for name, values in recognised.facts.items():
        stated = facts.get(name)
        if len(values) != 1 or stated is None:
            continue
        if stated != values[0]:
            return f"it has {name} = {values[0]}, not {stated}"
        is_confirmed = True
    if not recognised.bases or base in (*recognised.bases, *recognised.layout.also):
        return ""
    # facts decide, unless the layout itself fixes the base: a model may have a base name of its own
    return "" if is_confirmed and recognised.layout.base is None else "it is for another base"


def fits_shapes(
    wanted: Mapping[str, Sequence[Size]], evidence: Evidence, facts: Facts
) -> dict[str, tuple[int, ...]] | None:
    """Compares the shapes of tensors with declared ones.

    Args:
        wanted: The declared shapes by pattern.
        evidence: The header of the file.
        facts: The facts that are known already.

    Returns:
        The facts and those that the shapes bind; None if a shape differs, or no name matches.
    """
    bound = dict(facts)
    for pattern, sizes in wanted.items():
        names = evidence.names.matching(pattern)
        if not names or not all(_binds(sizes, evidence.shapes[name], bound) for name in names):
            return None
    return bound


def _fit(layout: Layout, evidence: Evidence) -> dict[str, tuple[int, ...]] | None:
    """Returns the facts that a layout binds; None if the file does not have the layout."""
    has, config, metadata = evidence.names.has, evidence.config, evidence.metadata
    if (
        not all(map(has, layout.keys))
        or (layout.any and not any(map(has, layout.any)))
        or any(map(has, layout.without))
        or not all(key in config and config[key] == value for key, value in layout.config.items())
        or not all(
            key in metadata and is_match(metadata[key], pattern)
            for key, pattern in layout.metadata.items()
        )
    ):
        return None
    return fits_shapes(layout.shapes, evidence, {})


def _method(file: FileTable, evidence: Evidence) -> str:
    has = evidence.names.has
    return next((words for words, patterns in file.methods.items() if any(map(has, patterns))), "")


def _binds(sizes: Sequence[Size], shape: Shape, bound: dict[str, tuple[int, ...]]) -> bool:
    """Whether a shape has the declared sizes; words without a value get one."""
    if sizes and sizes[-1] == REST:
        sizes, shape = sizes[:-1], shape[: len(sizes) - 1]
    if len(sizes) != len(shape):
        return False
    for wanted, size in zip(sizes, shape, strict=True):
        if isinstance(wanted, tuple):
            fits = size in wanted
        elif isinstance(wanted, str) and wanted != ANY:
            fits = bound.setdefault(wanted, (size,)) == (size,)
        else:
            fits = wanted in (ANY, size)
        if not fits:
            return False
    return True


def _shown(file: FileTable, evidence: Evidence, bound: Facts) -> dict[str, tuple[int, ...]]:
    """Returns the facts that a reader takes from any file, apart from those that are bound."""
    shown: dict[str, tuple[int, ...]] = {}
    for fact, axes in file.facts.items():
        if fact in bound:
            continue
        values = {
            shape[axis]
            for pattern, axis in axes.items()
            for name in evidence.names.matching(pattern)
            if -len(shape := evidence.shapes[name]) <= axis < len(shape)
        }
        if values:
            shown[fact] = tuple(sorted(values))
    return shown


def _bases(
    layout: Layout, facts: Facts, evidence: Evidence, bases: Sequence[Base]
) -> tuple[str, ...]:
    """Returns the bases that a file may be for, by its layout, its facts, then its metadata."""
    if layout.base is not None:
        return (layout.base,)
    single = {name: values[0] for name, values in facts.items() if len(values) == 1}
    by_facts = {
        base.name
        for base in bases
        if (stated := base.facts.keys() & single)
        and all(base.facts[name] == single[name] for name in stated)
    }
    is_stated = any(base.facts.keys() & single for base in bases)
    if is_stated and len(by_facts) < 2:
        return tuple(by_facts)
    named = {base.name for base in bases if _is_named(base, evidence)}
    return tuple(sorted((by_facts & named) or by_facts or named))


def _is_named(base: Base, evidence: Evidence) -> bool:
    for key, patterns in base.named_as.items():
        for texts in (evidence.metadata, evidence.config):
            value = texts.get(key)
            values = cast("list[Any]", value) if isinstance(value, list) else [value]
            named = (text for text in values if isinstance(text, str))
            if any(is_match(text, pattern) for text in named for pattern in patterns):
                return True
    return False
