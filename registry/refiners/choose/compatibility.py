"""Judges whether the variants of an adapter suit a model, with a reason for each refusal.

All functions are pure: they read no file, import no plugin and open no socket. Errors and
`refiners why` print the whole list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from refiners.choose.policy import Guard
from refiners.errors import IncompatibleError, LockError, PolicyError
from refiners.host.shell import quoted
from refiners.hub.tensor_header import Header
from refiners.installed.distribution import DISTRIBUTION, canonical_id, distribution_of
from refiners.installed.inventory import Installed
from refiners.manifest.schema import AdapterSpec, Dimension, Target, Variant
from refiners.manifest.version import is_within


@dataclass(frozen=True)
class WornAdapter:
    """The facts about an adapter that a model wears already."""

    name: str
    id: str
    conflicts: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True)
class ModelFacts:
    """The facts about a model that decide compatibility."""

    name: str
    """The name of the model in messages."""
    base: str | None
    """The base of the model; None for a tree without one."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    slots: frozenset[str] | None = None
    """The names of its slots; None if they are unknown before the model is built."""
    dtype: str | None = None
    """The dtype of its computations, such as `float16`; None if unknown."""
    worn: tuple[WornAdapter, ...] = ()


@dataclass(frozen=True)
class Accepted:
    """A variant that suits the model."""

    candidate: str
    variant: Variant

    def __str__(self) -> str:
        return f"{self.candidate}: suits."


@dataclass(frozen=True)
class Rejected:
    """A candidate that does not suit, with the reason and a hint."""

    candidate: str
    reason: str
    hint: str = ""
    rule: str = ""
    """The policy rule or advisory that refuses an otherwise suitable candidate."""
    is_unlocked: bool = False
    """Whether the candidate suits, but the lock in use does not pin its files."""
    heading: str = ""
    """The first line of an error about the candidate; by default, that no variant suits."""

    def __str__(self) -> str:
        return f"{self.candidate}: {self.reason}.{f' {self.hint}' if self.hint else ''}"


Verdict = Accepted | Rejected


def trace(
    adapter: Installed[AdapterSpec],
    model: ModelFacts,
    *,
    api_version: str,
    has_package: Callable[[str], bool],
    guard: Guard | None = None,
) -> tuple[Verdict, ...]:
    """Judges every variant of an adapter for a model, the best candidate first.

    A variant for the base of the model comes before one for any base, and one in the dtype of the
    model before the others; otherwise the order of the manifest is kept.

    Args:
        adapter: The adapter.
        model: The facts about the model.
        api_version: The API version of the core.
        has_package: Returns whether a top-level package is installed, for weights in packages.
        guard: The policies and advisories.
    """
    guard = guard or Guard()
    if refusal := check_api(adapter, api_version):
        return (refusal,)
    if misfit := adapter.misfit(model.name, model.base, model.facts):
        return (Rejected(adapter.name, misfit.reason, misfit.hint, heading=misfit.heading),)
    judged: list[Verdict] = []
    for variant in sorted(adapter.spec.variant, key=lambda variant: _rank(variant, model)):
        candidate = f"{adapter.name} ({variant.label})"
        reasons = _reasons(candidate, adapter, variant, model, has_package, guard)
        judged.append(next(reasons, Accepted(candidate, variant)))
    return tuple(judged)


def check_api(plugin: Installed[Any], api_version: str) -> Rejected | None:
    """Returns the refusal of a plugin that was written for another version of the core."""
    wanted: str = plugin.spec.core_api
    if is_within(api_version, wanted):
        return None
    return Rejected(
        plugin.id,
        f"needs core API {wanted}, this is {api_version}",
        f"Try pip install -U {plugin.dist} {DISTRIBUTION}.",
    )


def check_shapes(
    candidate: str,
    file: str,
    wanted: Mapping[str, tuple[Dimension, ...]],
    header: Header,
    model: ModelFacts,
) -> Rejected | None:
    """Returns the refusal of a file whose tensors differ from those that its manifest declares.

    Args:
        candidate: The variant, for messages.
        file: The file, for messages.
        wanted: The declared shapes; a word stands for a fact of the model.
        header: The shapes in the file.
        model: The facts about the model.
    """
    for name, dimensions in wanted.items():
        if name not in header:
            return Rejected(
                candidate,
                f"{file} has no tensor {name}",
                "It is not the file that the manifest describes.",
            )
        shape = tuple(model.facts.get(d, d) if isinstance(d, str) else d for d in dimensions)
        actual = header[name]
        if len(shape) != len(actual) or any(
            d not in ("*", t) for d, t in zip(shape, actual, strict=True)
        ):
            due = ", ".join(map(str, shape))
            reason = f"{name} in {file} is {list(actual)}, for {model.name} it should be [{due}]"
            return Rejected(candidate, reason, "The file was made for another base.")
    return None


def choose(
    adapter: Installed[AdapterSpec], model: ModelFacts, verdicts: Sequence[Verdict]
) -> Variant:
    """Returns the first variant that suits.

    Raises:
        IncompatibleError: No variant suits; the error lists every candidate with its reason.
        PolicyError: A variant suits, but a rule refuses it.
        LockError: A variant suits, but the lock in use does not pin its files.
    """
    for verdict in verdicts:
        if isinstance(verdict, Accepted):
            return verdict.variant
    rejected = tuple(verdict for verdict in verdicts if isinstance(verdict, Rejected))
    if refused := [verdict for verdict in rejected if verdict.rule]:
        lines = "\n".join(f"  {verdict}" for verdict in rejected)
        raise PolicyError(
            f"{adapter.name} is refused for {model.name}:\n{lines}\n",
            hint=refused[0].hint or "Ask the maintainer of these rules, or choose another adapter.",
            dist=adapter.dist,
        )
    if unlocked := [verdict for verdict in rejected if verdict.is_unlocked]:
        raise LockError(
            f"{adapter.name} is not locked for {model.name}: {unlocked[0].reason}.",
            hint=unlocked[0].hint,
            dist=adapter.dist,
        )
    heading = rejected[0].heading if rejected else ""
    raise IncompatibleError(
        heading or f"{adapter.name} has no variant for {model.name}:", rejected, dist=adapter.dist
    )


def _rank(variant: Variant, model: ModelFacts) -> tuple[int, int]:
    base = 1 if variant.base is None else 0 if variant.base == model.base else 2
    if model.dtype is None or variant.dtype is None:
        return base, 1
    return base, 0 if variant.dtype == model.dtype else 2


def _reasons(
    candidate: str,
    adapter: Installed[AdapterSpec],
    variant: Variant,
    model: ModelFacts,
    has_package: Callable[[str], bool],
    guard: Guard,
) -> Iterator[Rejected]:
    """Yields the reasons against a variant; callers report the first."""
    if variant.base is not None and variant.base != model.base:
        actual = f"is {model.base}" if model.base else "does not name a base"
        hint = f"Load a model of base {variant.base}."
        yield Rejected(candidate, f"needs {variant.base}, {model.name} {actual}", hint)
    for name, wanted in variant.facts.items():
        if name not in model.facts:
            known = ", ".join(sorted(model.facts)) or "none"
            yield Rejected(candidate, f"needs {name} = {wanted!r}, {model.name} states {known}")
        elif model.facts[name] != wanted:
            actual = model.facts[name]
            yield Rejected(candidate, f"needs {name} = {wanted!r}, {model.name} has {actual!r}")
    if model.slots is not None:
        missing = sorted({t.slot for t in variant.targets} - model.slots)
        if missing:
            reason = f"{model.name} does not have the slot {', '.join(missing)}"
            yield Rejected(candidate, reason, "Its slots: print(sorted(model.slots)).")
    for worn in model.worn:
        yield from conflicts(candidate, adapter, variant, worn)
    if unlocked := sorted({*variant.files.values()} - adapter.spec.weights.keys()):
        base = model.base or variant.base or "NAME"
        hint = f"Run {quoted('refiners', 'lock', adapter.id, '--model', base)}."
        reason = f"the lock does not pin its files {', '.join(unlocked)}"
        yield Rejected(candidate, reason, hint, is_unlocked=True)
        return
    for weights in (adapter.spec.weights[name] for name in variant.files.values()):
        package = weights.package_path[0]
        if weights.scheme == "pkg" and not has_package(package):
            reason = f"its weights are in the package {package}, which is not installed"
            yield Rejected(candidate, reason, f"Try pip install {distribution_of(package)}.")
    files = [adapter.spec.weights[name] for name in variant.files.values()]
    refusals = [*guard.package_refusals(adapter)]
    refusals += [refusal for file in files for refusal in guard.file_refusals(file)]
    for refusal in refusals:
        reason = f"{refusal.reason} ({refusal.rule})"
        yield Rejected(candidate, reason, refusal.hint, refusal.rule)


def conflicts(
    candidate: str, adapter: Installed[AdapterSpec], variant: Variant, worn: WornAdapter
) -> Iterator[Rejected]:
    """Yields why a variant does not go with an adapter that a model wears.

    Args:
        candidate: The name of the adapter and the variant, for messages.
        adapter: The adapter.
        variant: Its variant.
        worn: The adapter that is worn.
    """
    way_out = f"Eject {worn.name} first."
    if {worn.name, worn.id} & {*map(canonical_id, adapter.spec.conflicts)}:
        yield Rejected(candidate, f"its manifest lists {worn.name} as a conflict", way_out)
    elif {adapter.name, adapter.id} & {*map(canonical_id, worn.conflicts)}:
        reason = f"the manifest of {worn.name} lists it as a conflict"
        yield Rejected(candidate, reason, way_out)
    for target in variant.targets:
        for other in worn.targets:
            if target.slot == other.slot and (target.exclusive or other.exclusive):
                reason = (
                    f"{worn.name} is worn and needs the slot {target.slot} exclusively"
                    if other.exclusive
                    else f"needs the slot {target.slot} exclusively, and {worn.name} edits it"
                )
                yield Rejected(candidate, reason, way_out)
