"""Small add-ons that say, forward only, what they do to a tree."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

import torch
from torch import Tensor, nn

from refiners_core.errors import AdapterError, ConditionError, PlanError
from refiners_core.hookspecs import Surgery, manager
from refiners_core.surgery import plan
from refiners_core.surgery.hotswap import hotswap
from refiners_core.surgery.key import checked_key, natural, next_key
from refiners_core.surgery.overlay import Swap
from refiners_core.surgery.placement import place_layer, weight_around
from refiners_core.surgery.rollback import restorer
from refiners_core.surgery.selection import Edit
from refiners_core.surgery.source import Source, Weights
from refiners_core.surgery.tree_index import ChainRef, Seat, TreeIndex, tree_index, unchanging
from refiners_core.tree.chain import Chain


class Adapter(nn.Module):
    """Something that a tree can wear: edits that say where and what, and layers for them.

    A subclass defines `edits`, usually `build`, and `encode` where it takes a condition. Nobody
    writes the way back: it is derived. Its `parameters()` are its own, none of the base's.

    Args:
        weights: Chooses files for the model of the first inject; None makes an untrained adapter.
        name: The family name that its key begins with.
        key: What its layers and context values are marked with; `name`, then `name-2` and so on by
            default.
    """

    takes_condition: ClassVar[bool] = False
    """Whether a generation must say something to it: a picture, an edge map."""
    takes_mask: ClassVar[bool] = False
    """Whether it can act on a part of the picture: `Condition(value, mask=...)`."""
    words: Mapping[str, int] = MappingProxyType({})
    """Words that prompts may use while it acts, and how many tokens each is long. The text encoder
    finds the first of their tokens in the context as `words`, the others going down from it."""
    inputs: ClassVar[tuple[str, ...]] = ()
    """What its condition must have where it needs several values: they come as a mapping by these
    names, and a missing one is an error before any network runs."""
    optional_inputs: ClassVar[tuple[str, ...]] = ()
    """What such a mapping may have beside `inputs`; any other name is an error."""

    def __init__(self, *, weights: Weights | None = None, name: str = "", key: str = "") -> None:
        super().__init__()
        self.name: Final = name or type(self).__name__.lower()
        self.key: Final = checked_key(key or next_key(self.name))
        self.order: Final = natural(self.key)
        self.source: Source | None = None
        self.own_layers = nn.ModuleDict()
        self._choose_source = weights
        self._bound_to: str | None = None
        self._tree: weakref.ref[Chain] | None = None
        self._chains: tuple[weakref.ref[Chain], ...] = ()
        self._known: TreeIndex | None = None  # of the tree that is being planned for
        self._beside: dict[ChainRef, Tensor | None] = {}  # the base's weights there
        self._fitted: tuple[torch.device, torch.dtype] | None = None

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

    def check(self, value: Any, request: Any) -> None:
        """Refuses a generation in which it cannot act: called before any network runs, for every
        adapter that acts at some step.

        Args:
            value: The value in `conditions`; None for an adapter that takes none.
            request: As for `encode`.

        Raises:
            ConditionError: The adapter cannot act on this value, or in this generation.
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

        It is moved to the device and dtype that the base has around the seat now.
        """
        known = self._known
        if known is not None and seat.spot not in known.by_spot:
            seat = known.own(seat) or seat
        # Asked for so often that attributes of modules would take most of the time.
        layers = self.__dict__["_modules"]["own_layers"].__dict__["_modules"]
        name = seat.path.replace(".", "/")
        own = layers.get(name)
        is_new = own is None
        if own is None:
            own = layers[name] = build()
        # Weights are remembered while planning only: later they would keep the base alive.
        base = weight_around(seat, {} if known is None else self._beside)
        return own if base is None else place_layer(own, base, is_new)

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
        """Whether a living tree, or a part of one, wears it."""
        return bool(self._wearing())

    def inject(self, tree: Chain) -> Self:
        """Puts the adapter on a tree; both are left as they were if anything fails.

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
        plan.check_idle([tree], f"inject {self.key}")
        restore = restorer(self)
        try:
            self._bind(tree)
            with unchanging(tree) as self._known:
                swaps = plan.plan_inject(self._known, self, self._said(tree))
            self._swap("inject", tree, swaps)
        except BaseException:
            restore()
            raise
        finally:
            self._known, self._beside = None, {}
        return self

    def eject(self) -> Self:
        """Takes the adapter off; the tree is what it would be had it never been worn.

        Raises:
            AdapterError: No living tree wears it.
            PlanError: The tree was edited by hand, or is running.
        """
        chains = self._wearing()
        if not chains:
            raise AdapterError(f"{self.key} is not worn.", hint="Call its inject(model) first.")
        tree = self._tree() if self._tree is not None else None
        tree = chains[0] if tree is None else tree  # a part may live on without its model
        self._swap("eject", tree, plan.plan_eject(tree, chains, self))
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

    def hotswap(self, other: Adapter) -> Self:
        """Changes weights with another adapter of the same make and shapes, and returns itself.

        What wears this one then computes with what were the other's weights, at once: no tree is
        edited and nothing is compiled anew. A second call changes them back.

        Raises:
            AdapterError: They differ in more than the values of weights, or a tree of this one or
                of the other is running; nothing was changed.
        """
        plan.check_idle((*self._wearing(), *other._wearing()), f"exchange weights of {self.key}")
        hotswap(self, other, (self.key, other.key))
        return self

    def save(self, path: str | Path) -> None:
        """Writes its weights as safetensors in the layout in which its family publishes them."""
        from refiners_core.weights import write

        write(self.published(), path)

    def _said(self, tree: Chain) -> tuple[Edit, ...]:
        said: Any = self.edits(tree)
        edits = tuple(said) if isinstance(said, Iterable) else (said,)
        for edit in edits:
            if not isinstance(edit, Edit):
                raise PlanError(
                    f"{self.key} says {type(edit).__name__} where edits are asked for.",
                    hint="Return what wrap, before, after, replace and remove return, joined by +.",
                )
        return edits

    def _swap(self, verb: str, tree: Chain, swaps: Sequence[Swap]) -> None:
        hooks, event = manager().hook, Surgery(self, tree)
        getattr(hooks, f"before_{verb}")(event=event)
        undo = plan.apply(swaps)
        worn_by = self._tree, self._chains
        if verb == "inject":
            self._tree = weakref.ref(tree)
            self._chains = tuple([weakref.ref(swap.chain) for swap in swaps])
        else:
            self._tree, self._chains = None, ()
        try:
            getattr(hooks, f"after_{verb}")(event=event)
        except BaseException:
            plan.apply(undo)
            self._tree, self._chains = worn_by
            raise

    def _wearing(self) -> list[Chain]:
        return [chain for ref in self._chains if (chain := ref()) is not None]

    def _bind(self, tree: Chain) -> None:
        family = str(getattr(tree, "base", type(tree).__name__))
        here = tree.device, tree.dtype
        if self._bound_to is not None:
            if self._bound_to != family:
                raise AdapterError(
                    f"{self.key} was made for {self._bound_to}; this model is {family}.",
                    hint=f"Load another one for {family}.",
                )
            self._follow(here)
            return
        self.source = self._choose_source(tree) if self._choose_source else None
        self._known = tree_index(tree)  # layers may be asked for already
        self.build(tree, self.source)
        self._bound_to, self._fitted = family, here

    def _follow(self, here: tuple[torch.device, torch.dtype]) -> None:
        """Moves the layers to where the base is now; weights never move to or from the meta
        device."""
        there = self._fitted
        if there is not None and there != here and "meta" not in (there[0].type, here[0].type):
            self.to(*here)
            self._fitted = here

    def __repr__(self) -> str:
        tree = self._tree() if self._tree is not None else None
        family = None if tree is None else getattr(tree, "base", type(tree).__name__)
        by = f"worn by {family}" if family else "not worn"
        return f"<{type(self).__name__} {self.key}, {by}>"

    def __getstate__(self) -> dict[str, Any]:
        """What `deepcopy` and `pickle` take: the adapter, worn by nothing."""
        return self.__dict__ | {"_tree": None, "_chains": (), "_choose_source": None}
