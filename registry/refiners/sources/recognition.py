"""Identifies the kind of a file among installed, published and known ones."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

from refiners.catalog.kind import known_kinds, published_readers
from refiners.errors import NotInstalledError, OptionError, RefinersError, UnsupportedError
from refiners.installed.inventory import Installed, Inventory, scan
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
    fit, hint = fits[0], hint_for(fits)
    reader = fit.reader
    if reader.kind == "model":
        return UnsupportedError(f"{given} is {fit}, not an adapter.", hint=hint, dist=reader.dist)
    if fit.layout.refuses:
        message = f"{given} is {fit}: {fit.layout.refuses}."
        return UnsupportedError(message, hint=hint, dist=reader.dist)
    if reader.kind == "published":
        dists = " or ".join(dict.fromkeys(other.reader.dist for other in fits))
        return NotInstalledError(
            f"{given} is {fit}; {dists} reads it and is not installed.",
            hint=hint,
            dist=reader.dist,
        )
    return UnsupportedError(
        f"{given} is {fit}; no installed or published adapter reads it.", hint=hint
    )


def hint_for(fits: Sequence[Recognised]) -> str:
    """Returns the next step for somebody who has a file of this kind."""
    reader = fits[0].reader
    if reader.kind == "published" and not fits[0].layout.refuses:
        dists = dict.fromkeys(fit.reader.dist for fit in fits)
        return f"Run {' or '.join(f'pip install {dist}' for dist in dists)}."
    if reader.kind == "model":
        return reader.hint or "Load a whole model by its path: refiners.load_model(...)."
    return reader.hint or "Use a file of a kind that refiners list shows."


def unknown(given: str, evidence: Evidence) -> UnsupportedError:
    """Returns the error for a file whose layout nothing declares."""
    keys = [*evidence.shapes]
    contents = ", ".join(map(repr, keys[:_SHOWN])) or "no tensors"
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    takers = [plugin.name for plugin in scan().adapters if plugin.spec.file is not None]
    return UnsupportedError(
        f"{given} has a layout that no adapter declares; it holds {contents}{more}.",
        hint=f'If you know its reader: load_adapter("{takers[0]}", model, file="{given}").'
        if takers
        else "Install the adapter that reads it: refiners search WORDS.",
    )


def _published(inventory: Inventory) -> tuple[Reader, ...]:
    here = {plugin.id for plugin in inventory.adapters}
    found = (Reader(it.file, "published", it.name, it.dist) for it in published_readers())
    return tuple(reader for reader in found if reader.id not in here)


def reader_of(plugin: Installed[AdapterSpec]) -> Reader:
    """Returns the reader that an installed adapter with a `file` table is."""
    assert plugin.spec.file is not None, plugin.id
    return Reader(plugin.spec.file, "adapter", plugin.name, plugin.dist)
