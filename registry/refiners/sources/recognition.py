"""Identifies the kind of a file among installed, published and known ones."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import PurePath
from typing import Final

from refiners.catalog.kind import known_kinds, published_readers
from refiners.errors import NotInstalledError, OptionError, RefinersError, UnsupportedError
from refiners.host.shell import quoted
from refiners.installed.inventory import Installed, Inventory, scan
from refiners.manifest.address import PREFIX
from refiners.manifest.file_layout import UserFile
from refiners.manifest.schema import AdapterSpec
from refiners.recognition.recogniser import Base, Evidence, Reader, Recognised, recognise

_SHOWN: Final = 3
"""The number of tensors that a message names."""


def identify_kind(evidence: Evidence) -> tuple[Recognised, ...]:
    """Returns the kinds of file that the evidence fits.

    Installed readers that take the file go first, then published ones. Otherwise the most specific
    layout counts, of readers that refuse the file and of kinds that are known without a reader.
    """
    inventory, bases = scan(), known_bases()
    installed = recognise(evidence, readers(inventory), bases)
    if any(not fit.layout.refuses for fit in installed):
        return installed
    published = recognise(evidence, _published(inventory), bases)
    if any(not fit.layout.refuses for fit in published):
        return published
    kinds = (Reader(kind, "known", hint=kind.hint) for kind in known_kinds().kind)
    rest = (*installed, *published, *recognise(evidence, kinds, bases))
    most = max((fit.layout.conditions for fit in rest), default=0)
    best = [fit for fit in rest if fit.layout.conditions == most]
    return tuple(fit for fit in best if fit.reader.kind == best[0].reader.kind)


def readers(inventory: Inventory) -> tuple[Reader, ...]:
    """Returns the installed adapters and models whose manifests say what files look like."""
    adapters = (reader_of(plugin) for plugin in inventory.adapters if plugin.spec.file is not None)
    models = (
        Reader(plugin.spec.file, "model", plugin.name, plugin.dist)
        for plugin in inventory.models
        if plugin.spec.file is not None
    )
    return (*adapters, *models)


def known_bases() -> tuple[Base, ...]:
    """Returns the bases of the installed models, and those that only the catalog knows."""
    installed = {
        base: Base(base, plugin.spec.facts, plugin.spec.named_as)
        for plugin in scan().models
        if (base := plugin.spec.base or plugin.name)
    }
    listed = (Base(base.name, base.facts, base.named_as) for base in known_kinds().base)
    return (*installed.values(), *(base for base in listed if base.name not in installed))


def repositories_of(base: str) -> tuple[str, ...]:
    """Returns the repositories by which cards name a base model.

    Raises:
        OptionError: No installed model and no known base has this name.
    """
    bases = {known.name: known for known in known_bases()}
    if base not in bases:
        close = get_close_matches(base, bases, n=1)
        raise OptionError(
            f"no base model has the name {base!r}.",
            hint=f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(bases)}.",
        )
    published = (
        file.address
        for plugin in scan().models
        if (plugin.spec.base or plugin.name) == base
        for file in plugin.spec.weights.values()
        if file.scheme == "hf"
    )
    named = bases[base].named_as.get("base_model", ())
    repositories = (*published, *(name for name in named if "*" not in name))
    if not repositories:
        raise OptionError(
            f"no repository on the Hub is known for the base model {base!r}.",
            hint="Leave --base out.",
        )
    return tuple(dict.fromkeys(repositories))


def refusal(given: str, fits: Sequence[Recognised]) -> RefinersError:
    """Returns the error for a file of a known kind that no installed adapter reads."""
    fit, hint = fits[0], hint_for(given, fits)
    reader, name = fit.reader, short(given)
    if reader.kind == "model":
        return UnsupportedError(f"{name} is {fit}, not an adapter.", hint=hint, dist=reader.dist)
    if fit.layout.refuses:
        message = f"{name} is {fit}: {fit.layout.refuses}."
        return UnsupportedError(message, hint=hint, dist=reader.dist)
    if reader.kind == "published":
        dists = " or ".join(dict.fromkeys(other.reader.dist for other in fits))
        message = f"{name} is {fit}; {dists} reads it and is not installed."
        return NotInstalledError(message, hint=hint, dist=reader.dist)
    return UnsupportedError(f"{name} is {fit}; no known adapter reads it.", hint=hint)


def hint_for(given: str, fits: Sequence[Recognised]) -> str:
    """Returns the next step for somebody who has a file of this kind."""
    fit = fits[0]
    reader = fit.reader
    if reader.kind == "model":
        return f'Whole models are loaded as such: refiners.load_model("{given}").'
    if fit.layout.refuses and isinstance(reader.file, UserFile):
        return f"Give {reader.file.summary}."
    if reader.kind == "published":
        dists = dict.fromkeys(other.reader.dist for other in fits)
        return f"Run {' or '.join(f'pip install {dist}' for dist in dists)}."
    words = quoted("refiners", "search", fit.what.rpartition(" ")[2], *fit.bases)
    return reader.hint or f"Look for one that does: {words}"


def short(given: str) -> str:
    """Returns a file as messages name it: an address, or the last part of a path."""
    return given if given.startswith(PREFIX) else PurePath(given).name or given


class UnknownKindError(UnsupportedError):
    """A file has a layout that no adapter, model or known kind declares."""


def unknown(given: str, evidence: Evidence) -> UnknownKindError:
    """Returns the error for a file whose layout nothing declares."""
    keys = [*evidence.shapes]
    if not keys:
        return UnknownKindError(
            f"{short(given)} holds no tensors.",
            hint="Fetch it again, or ask the publisher for an intact file.",
        )
    contents = ", ".join(map(repr, keys[:_SHOWN]))
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    takers = [plugin.name for plugin in scan().adapters if plugin.spec.file is not None]
    return UnknownKindError(
        f"{short(given)} has a layout that no adapter declares; it holds {contents}{more}.",
        hint=f"If you know its reader, one of {', '.join(takers)}: "
        f'load_adapter("{takers[0]}", model, file="{given}").'
        if takers
        else "Install the adapter that reads it: refiners search WORDS.",
    )


def _published(inventory: Inventory) -> tuple[Reader, ...]:
    installed = {plugin.id for plugin in inventory.adapters}
    published = (Reader(it.file, "published", it.name, it.dist) for it in published_readers())
    return tuple(reader for reader in published if reader.id not in installed)


def reader_of(plugin: Installed[AdapterSpec]) -> Reader:
    """Returns the reader that an installed adapter with a `file` table is."""
    assert plugin.spec.file is not None, plugin.id
    return Reader(plugin.spec.file, "adapter", plugin.name, plugin.dist)
