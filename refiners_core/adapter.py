"""Small add-ons that say, forward only, what they do to a tree."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from torch import Tensor, nn

from refiners_core import graft
from refiners_core.chain import Chain, first_weight
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.hookspecs import Surgery, manager
from refiners_core.selection import Edit, Seat

_serials: Final[dict[str, Iterator[int]]] = {}


@dataclass(frozen=True)
class Source:
    """What an adapter is made from: verified files and the settings that its manifest gives with
    them."""

    files: Mapping[str, Path]
    """Paths by the names that the manifest gives them; the main one is `weights`."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Facts that the files do not tell, such as the number of attention heads."""
    variant: str = ""
    """What the source is for, for messages: `sd15`, say."""


Weights = Callable[[Chain], Source]
"""Chooses the source that suits a model; what a registry passes."""


class Adapter(nn.Module):
    """Something that a tree can wear: edits that say where and what, and the layers that they
    bring.

    A subclass defines `edits`, usually `build`, and `encode` where it takes a condition. Nobody
    writes the way
    back: it is derived. An adapter owns only its own layers; `parameters()` are disjoint from the
        base's.

    Args:
        weights: Chooses files for the model of the first inject; None makes an untrained adapter.
        name: The family name that its key begins with.
        key: What its layers and context values are marked with; `name`, then `name-2` and so on by
            default.
    """

    takes_condition: ClassVar[bool] = False
    """Whether a generation must say something to it: a picture, an edge map."""

    def __init__(self, *, weights: Weights | None = None, name: str = "", key: str = "") -> None:
        super().__init__()
        self.name: Final = name or type(self).__name__.lower()
        serial = next(_serials.setdefault(self.name, itertools.count(1)))
        self.key: Final = _checked_key(
            key or (self.name if serial == 1 else f"{self.name}-{serial}")
        )
        self.order: Final = (self.name, serial)
        self.source: Source | None = None
        self.own_layers = nn.ModuleDict()
        self._choose_source = weights
        self._bound_to: str | None = None
        self._tree: weakref.ref[Chain] | None = None
        self._chains: tuple[weakref.ref[Chain], ...] = ()

    # --- what a subclass says ---

    def edits(self, model: Any) -> Iterable[Edit]:
        """Returns what becomes of the tree; called while planning, so it touches nothing."""
        raise AdapterError(
            f"{type(self).__name__} says no edits.",
            hint="Define edits(self, model), e.g. select(model)...wrap(...).",
        )

    def build(self, model: Any, source: Source | None) -> None:
        """Makes the adapter's own layers for a model and loads them; called once, at the first
        inject.

        Args:
            model: The tree of that inject; facts come from it, nothing of it is kept.
            source: Verified files, or None to begin untrained.
        """

    def encode(self, value: Any, request: Any) -> dict[str, dict[str, Tensor]]:
        """Turns a condition into context values, once per generation.

        Args:
            value: What the caller passed in `conditions`.
            request: What is being generated: sizes, count, branches, dtype, device.

        Returns:
            For each context key, a tensor per branch; a branch that is missing takes that of
            `cond`.
        """
        raise ConditionError(
            f"{self.key} takes no condition.",
            hint=f"Leave it out of conditions, got {type(value).__name__}.",
        )

    def published(self) -> Mapping[str, Tensor]:
        """Returns its weights under the names and in the shapes in which its family publishes
        them."""
        raise AdapterError(
            f"{type(self).__name__} has no published layout.",
            hint="Define published(self) to make save() work.",
        )

    # --- what a subclass uses ---

    def layer(self, seat: Seat, build: Callable[[], nn.Module]) -> Any:
        """Returns the adapter's own layer for a seat, built once and kept across ejects.

        It is moved to the device and dtype of the base around the seat when it is built.
        """
        name = seat.path.replace(".", "/")
        if name not in self.own_layers:
            base = next(
                (c for c in reversed(seat.above) if first_weight(c) is not None), seat.chain
            )
            self.own_layers[name] = build().to(device=base.device, dtype=base.dtype)
        return self.own_layers[name]

    def context_key(self, name: str) -> str:
        """Returns the name of one of its context values, such as `ip-adapter.tokens`."""
        return f"{self.key}.{name}"

    @property
    def scale_key(self) -> str:
        """The context key of its scale, a 0-d tensor; absent while it is inactive."""
        return self.context_key("scale")

    # --- what a user does ---

    @property
    def is_worn(self) -> bool:
        """Whether a living tree wears it."""
        return self._tree is not None and self._tree() is not None

    def inject(self, tree: Chain) -> Self:
        """Puts the adapter on a tree, which is left as it was if anything fails.

        Raises:
            AdapterError: It is worn already, or bound to another family.
            PlanError: Its edits contradict the tree or what that wears.
        """
        if self.is_worn:
            raise AdapterError(
                f"{self.key} is worn already.", hint="Call its eject() first, or load a second one."
            )
        if not isinstance(tree, Chain):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AdapterError(
                f"{self.key} is injected into a model or a Chain, not into {type(tree).__name__}.",
                hint="Try adapter.inject(refiners.load_model(...)).",
            )
        own = self.__dict__.copy()
        saved = {name: own[name].copy() for name in ("_modules", "_parameters", "_buffers")}
        try:
            self._bind(tree)
            swaps = graft.plan_inject(tree, self, tuple(self.edits(tree)))
        except BaseException:
            if own["_bound_to"] is None:  # a first inject that failed binds nothing
                self.__dict__.update(own | saved)
            raise
        self._swap("inject", tree, swaps, weakref.ref(tree))
        return self

    def eject(self) -> Self:
        """Takes the adapter off; the tree is what it would be had it never been worn.

        Raises:
            AdapterError: No living tree wears it.
            PlanError: The tree was edited by hand, or is running.
        """
        tree = self._tree() if self._tree is not None else None
        if tree is None:
            raise AdapterError(f"{self.key} is not worn.", hint="Call its inject(model) first.")
        chains = [chain for ref in self._chains if (chain := ref()) is not None]
        self._swap("eject", tree, graft.plan_eject(tree, chains, self), None)
        return self

    @contextmanager
    def on(self, tree: Chain) -> Generator[Self]:
        """Wears the adapter for the length of a `with` block."""
        self.inject(tree)
        try:
            yield self
        finally:
            if self.is_worn:
                self.eject()

    def save(self, path: str | Path) -> None:
        """Writes its weights as safetensors in the layout in which its family publishes them."""
        from refiners_core.weights import write

        write(self.published(), path)

    def _swap(
        self,
        verb: str,
        tree: Chain,
        swaps: Sequence[graft.Swap],
        worn_by: weakref.ref[Chain] | None,
    ) -> None:
        hooks, event = manager().hook, Surgery(self, tree)
        getattr(hooks, f"before_{verb}")(event=event)
        graft.apply(swaps)
        self._tree = worn_by
        self._chains = tuple([weakref.ref(chain) for chain, _ in swaps]) if worn_by else ()
        getattr(hooks, f"after_{verb}")(event=event)

    def _bind(self, tree: Chain) -> None:
        family = str(getattr(tree, "base", type(tree).__name__))
        if self._bound_to is not None:
            if self._bound_to != family:
                raise AdapterError(
                    f"{self.key} was made for {self._bound_to}; this model is {family}.",
                    hint=f"Load another one for {family}.",
                )
            return
        self.source = self._choose_source(tree) if self._choose_source else None
        self.build(tree, self.source)
        self._bound_to = family

    def __getstate__(self) -> dict[str, Any]:
        """What `deepcopy` and `pickle` take: the adapter, worn by nothing."""
        return self.__dict__ | {"_tree": None, "_chains": (), "_choose_source": None}


def _checked_key(key: str) -> str:
    if not key or any(c in key for c in ".@+/"):
        raise AdapterError(
            f"{key!r} cannot be the key of an adapter.",
            hint="Use letters, digits and hyphens, e.g. ip-adapter-2.",
        )
    return key
