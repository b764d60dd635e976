"""From a name to an adapter, and from an adapter and a model to the variant that suits.

Everything here is a pure function of what was read before: no file, no import, no socket. A refusal
is a value with a reason; errors print all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar

from refiners.catalog import Listed
from refiners.discover import Broken, Installed, canonical
from refiners.errors import (
    AmbiguousNameError,
    IncompatibleError,
    NotInstalledError,
    UnknownNameError,
)
from refiners.manifest import AdapterSpec, ModelSpec, Variant

S = TypeVar("S", AdapterSpec, ModelSpec)


@dataclass(frozen=True)
class ModelFacts:
    """What compatibility looks at in a model."""

    name: str
    """How messages call it."""
    base: str | None
    """Its base; None for a tree that does not say."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    slots: frozenset[str] | None = None
    """The slots that it publishes; None where they are not known before it is built."""


@dataclass(frozen=True)
class Accepted:
    """A variant that suits the model."""

    candidate: str
    variant: Variant


@dataclass(frozen=True)
class Rejected:
    """A candidate that does not suit, with the reason and what to do."""

    candidate: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.candidate}: {self.reason}.{f' {self.hint}' if self.hint else ''}"


Verdict = Accepted | Rejected


def find(
    name: str,
    installed: Sequence[Installed[S]],
    *,
    broken: Sequence[Broken] = (),
    catalog: Sequence[Listed] = (),
    what: str = "adapter",
) -> Installed[S]:
    """Finds what a name stands for.

    Args:
        name: Short, `controlnet-canny`, or canonical, `refiners-controlnet:controlnet-canny`.
        installed: What is installed.
        broken: What is installed and cannot be read.
        catalog: What is published.
        what: The word for it in messages.

    Raises:
        AmbiguousNameError: Several distributions provide the short name.
        NotInstalledError: It is published; the hint installs it.
        UnknownNameError: Nobody knows it; the hint has the names that come close.
    """
    dist, colon, short = name.rpartition(":")
    name = f"{canonical(dist)}{colon}{short}"
    found = [one for one in installed if name in (one.name, one.id)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = " and ".join(sorted(one.id for one in found))
        raise AmbiguousNameError(
            f"{name!r} is provided by {len(found)} distributions: {ids}.",
            hint=f"Say which: {found[0].id!r}.",
        )
    at_fault = {one.dist: one for one in broken}
    listed = next((one for one in catalog if name in (one.name, one.id)), None)
    if listed is not None and (culprit := at_fault.get(listed.distribution)) is not None:
        raise NotInstalledError(
            f"{name!r} belongs to {culprit}.",
            hint=f"Try pip install --force-reinstall {culprit.dist}.",
            dist=culprit.dist,
        )
    if listed is not None:
        raise NotInstalledError(
            f"the {what} {name!r} is published but not installed.",
            hint=f"Run pip install {listed.distribution}.",
            dist=listed.distribution,
        )
    raise _unknown(name, installed, broken, catalog, what)


def _unknown(
    name: str,
    installed: Iterable[Installed[Any]],
    broken: Iterable[Broken],
    catalog: Iterable[Listed],
    what: str,
) -> UnknownNameError:
    here = sorted({one.name for one in installed})
    close = get_close_matches(name, sorted({*here, *(one.name for one in catalog)}), n=3)
    if close:
        hint = f"Did you mean {' or '.join(map(repr, close))}?"
    else:
        hint = f"Installed: {', '.join(here) or 'none'}. Run refiners list."
    culprits = "; ".join(map(str, broken))
    unread = f" Some packages could not be read: {culprits}." if culprits else ""
    return UnknownNameError(f"there is no {what} called {name!r}.{unread}", hint=hint)


def trace(
    adapter: Installed[AdapterSpec],
    model: ModelFacts,
    *,
    api_version: str,
    has_package: Callable[[str], bool],
) -> tuple[Verdict, ...]:
    """Judges every variant of an adapter for a model, in the order of the manifest.

    Args:
        adapter: The candidate.
        model: What it should go on.
        api_version: Of the core that runs it.
        has_package: Whether a top-level package is installed, for weights that lie in one.
    """
    spec = adapter.spec
    if refusal := check_api(adapter, api_version):
        return (refusal,)
    return tuple(
        _judge(f"{adapter.name} ({variant.label})", spec, variant, model, has_package)
        for variant in spec.variant
    )


def check_api(plugin: Installed[Any], api_version: str) -> Rejected | None:
    """Returns the refusal of a plugin that was written for another core."""
    from packaging.specifiers import SpecifierSet

    wanted: str = plugin.spec.core_api
    if SpecifierSet(wanted).contains(api_version, prereleases=True):
        return None
    return Rejected(
        plugin.id,
        f"needs core API {wanted}, this is {api_version}",
        f"Try pip install -U {plugin.dist} refiners.",
    )


def choose(
    adapter: Installed[AdapterSpec], model: ModelFacts, verdicts: Sequence[Verdict]
) -> Variant:
    """Returns the first variant that suits.

    Raises:
        IncompatibleError: None does; it lists every candidate with its reason.
    """
    for verdict in verdicts:
        if isinstance(verdict, Accepted):
            return verdict.variant
    rejected = tuple(one for one in verdicts if isinstance(one, Rejected))
    raise IncompatibleError(
        f"{adapter.name} has no variant for {model.name}:", rejected, dist=adapter.dist
    )


def _judge(
    candidate: str,
    spec: AdapterSpec,
    variant: Variant,
    model: ModelFacts,
    has_package: Callable[[str], bool],
) -> Verdict:
    if variant.base is not None and variant.base != model.base:
        said = f"{model.name} is {model.base}" if model.base else f"{model.name} names no base"
        hint = f"Load a model of base {variant.base}."
        return Rejected(candidate, f"needs {variant.base}, {said}", hint)
    for name, wanted in variant.facts.items():
        if name not in model.facts:
            known = ", ".join(sorted(model.facts)) or "none"
            return Rejected(candidate, f"needs {name} = {wanted!r}, {model.name} states {known}")
        if model.facts[name] != wanted:
            there = model.facts[name]
            return Rejected(candidate, f"needs {name} = {wanted!r}, {model.name} has {there!r}")
    if model.slots is not None:
        missing = sorted({t.slot for t in variant.targets} - model.slots)
        if missing:
            reason = f"{model.name} offers no slot {', '.join(missing)}"
            return Rejected(candidate, reason, "Its slots: print(sorted(model.slots)).")
    for weights in (spec.weights[name] for name in variant.files.values()):
        package = weights.address.partition("/")[0]
        if weights.scheme == "pkg" and not has_package(package):
            dist = package.replace("_", "-")
            reason = f"its weights lie in the package {package}, which is not installed"
            return Rejected(candidate, reason, f"Try pip install {dist}.")
    return Accepted(candidate, variant)
