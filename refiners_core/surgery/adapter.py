"""Adapters: add-ons that describe their edits of a tree; the way back is derived."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

import torch
from torch import Tensor, nn

from refiners_core.advice import Advice
from refiners_core.errors import AdapterError, ConditionError, PlanError
from refiners_core.hookspecs import Surgery, call
from refiners_core.origin import OriginOf
from refiners_core.preprocessor import FindPreprocessor
from refiners_core.surgery import plan
from refiners_core.surgery.hotswap import hotswap
from refiners_core.surgery.key import checked_key, natural, next_key
from refiners_core.surgery.merging import Merging
from refiners_core.surgery.overlay import Swap
from refiners_core.surgery.placement import place_layer, weight_around
from refiners_core.surgery.rollback import restorer
from refiners_core.surgery.selection import Edit
from refiners_core.surgery.source import Source, Weights
from refiners_core.surgery.tree_index import ChainRef, Seat, TreeIndex, tree_index, unchanging
from refiners_core.surgery.wearable import Lane
from refiners_core.tree.chain import Chain
from refiners_core.weights.load import MisfitError


class Adapter(Merging):
    """An add-on that a tree can wear: edits of the tree, and the layers that they need.

    A subclass defines `edits`, usually `build`, and `encode` if it takes a condition. Ejecting is
    derived from the edits. Its `parameters()` are those of its layers, never of the base.

    Args:
        weights: Returns the files for the model of the first inject; None makes an untrained
            adapter.
        name: The name of its family, which its key begins with.
        key: The mark on its layers and context values; `name`, then `name-2` and so on by default.

    Raises:
        AdapterError: The key is empty or contains one of . @ + /.
    """

    takes_condition: ClassVar[bool] = False
    """Whether a generation must pass it a condition, such as an image or an edge map."""
    needs_condition: ClassVar[bool] = True
    """Whether a generation must pass the condition that it takes; otherwise it also acts without
    one."""
    takes_mask: ClassVar[bool] = False
    """Whether it can act on a region of the image: `Condition(value, mask=...)`."""
    reads_prompts: ClassVar[bool] = False
    """Whether its `encode` reads the prompts of the request: it is called, with None as the value,
    although the adapter takes no condition."""
    scales_rows: ClassVar[bool] = False
    """Whether its layers read a `RowScale` in place of a tensor, and leave the rows whose scale is
    0 bit for bit as they are. Otherwise a language model runs each of its places twice where its
    scale differs between rows."""
    words: Mapping[str, int | Sequence[int]] = MappingProxyType({})
    """The words that prompts may use while it is worn, each with its number of tokens: in every
    text encoder, or in each, which spells out a word of 0 tokens. The text encoder finds the id of
    the first token of the first word in the context, as the value `words` of the adapter; the ids
    of all further tokens count down from it, in each word as many as in the encoder with the most.
    """
    tokens_before: int = 0
    """The number of tokens that it puts before every text; they count against the length for which
    a language model was trained."""
    inputs: ClassVar[tuple[str, ...]] = ()
    """The names in the mapping that its condition must be, if it needs several values; a missing
    name is an error before any network runs."""
    optional_inputs: ClassVar[tuple[str, ...]] = ()
    """The names that the mapping may have beside `inputs`; any other name is an error."""
    outside: ClassVar[tuple[str, ...]] = ()
    """The attributes with layers that are never in a tree, such as the encoder of its condition; a
    hot swap exchanges them as they are, so that it takes no longer for a large one."""
    learned_files: ClassVar[tuple[str, ...]] = ("weights",)
    """The files that training makes, by their names in the manifest; all others, such as the
    encoder, are loaded before."""
    advice: Advice = Advice()
    """How its publisher recommends to use it. A subclass or a caller may set it; otherwise the
    first inject takes that of the manifest."""
    origin: OriginOf | None = None
    """Returns the package and the files it comes from, for the recipe of a picture."""
    preprocessors: FindPreprocessor | None = None
    """Finds the preprocessors of its condition; a registry sets it."""

    def __init__(self, *, weights: Weights | None = None, name: str = "", key: str = "") -> None:
        name = name or type(self).__name__.lower()
        super().__init__(checked_key(key or next_key(name)))
        self.name: Final = name
        self.order: tuple[Any, ...] = natural(self.key)
        self.lane: Lane | None = None
        self.source: Source | None = None
        self.own_layers = nn.ModuleDict()
        self._choose_source = weights
        self._bound_to: str | None = None
        self._tree: weakref.ref[Chain] | None = None
        self._chains: tuple[weakref.ref[Chain], ...] = ()
        self._known: TreeIndex | None = None  # the index of the tree being planned
        self._beside: dict[ChainRef, Tensor | None] = {}  # weights of the base around seats
        self._fitted: tuple[torch.device, torch.dtype] | None = None

    # --- defined by a subclass ---

    def edits(self, model: Any) -> Iterable[Edit]:
        """Returns the edits of the tree; called while planning, so it must not change anything.

        Args:
            model: The tree of the inject: a model or a `Chain`.

        Raises:
            AdapterError: The subclass does not define it.
        """
        raise AdapterError(
            f"{type(self).__name__} does not define edits.",
            hint="Define edits(self, model), e.g. return select(model)...wrap(...).",
        )

    def build(self, model: Any, source: Source | None) -> None:
        """Builds the layers of the adapter for a model and loads them; called once, at the first
        inject.

        Args:
            model: The tree of that inject; read facts from it and keep none of its layers.
            source: Verified files, or None to begin untrained. A source without the file `weights`
                also begins untrained, with its settings and its other files, such as the encoder.
        """

    def start(self, model: Any) -> None:
        """Sets the values that training begins with, which usually change nothing yet; called once,
        while the model wears the adapter and before the first step.

        A ControlNet copies the encoder of the UNet, an IP-Adapter sets its value projections to
        zero. By default the values stay as `build` made them.

        Args:
            model: The model that wears the adapter, with its weights.
        """

    def learners(self) -> Sequence[nn.Module]:
        """Returns the modules whose parameters are trained; everything else stays frozen.

        By default they are the layers of the adapter without those of `outside`, its encoders.
        """
        return [layer for name, layer in self.named_children() if name not in self.outside]

    def named_places(self, model: Any) -> Mapping[str, Sequence[str]]:
        """Returns further names of places for scales by place, `Condition(scale={name: 0.5})`.

        Args:
            model: The model that wears the adapter.

        Returns:
            For each name, the paths of the layers that it includes.
        """
        return {}

    def check(self, value: Any, request: Any) -> None:
        """Raises if the adapter cannot act in a generation; called before any network runs, for
        every adapter that is active at some step.

        Args:
            value: The value in `conditions`; None where an adapter acts without one.
            request: The generation: sizes, count, branches, dtype, device.

        Raises:
            ConditionError: The adapter cannot use this value, or cannot act in this generation.
        """

    def encode(self, value: Any, request: Any) -> dict[str, dict[str, Tensor]]:
        """Encodes a condition as context values, once per generation.

        Args:
            value: The value in `conditions`.
            request: The generation: sizes, count, branches, dtype, device.

        Returns:
            For each context key, a tensor per branch of guidance; a missing branch takes the tensor
            of `cond`.

        Raises:
            ConditionError: The adapter takes no condition.
        """
        raise ConditionError(
            f"{self.key} takes no condition.",
            hint=f"Leave it out of conditions, got {type(value).__name__}.",
        )

    def published(self) -> Mapping[str, Tensor]:
        """Returns its weights under the names and in the shapes that its family publishes.

        Raises:
            AdapterError: The adapter has no weights, or the subclass does not define it.
        """
        if next(self.parameters(), None) is None:
            raise AdapterError(
                f"{self.key} has no weights, so there is nothing to save.",
                hint=f'Load it by its name: refiners.load_adapter("{self.name}", model).',
            )
        raise AdapterError(
            f"{type(self).__name__} has no published layout.",
            hint="Define published(self) to make save() work.",
        )

    # --- used by a subclass ---

    def layer(self, seat: Seat, build: Callable[[], nn.Module]) -> Any:
        """Returns the layer of the adapter for a seat, built once and kept across ejects.

        The layer is moved to the current device and dtype of the base around the seat.

        Args:
            seat: The seat that the layer belongs to.
            build: Builds the layer at the first call for this seat.
        """
        known = self._known
        if known is not None and seat.spot not in known.by_spot:
            seat = known.seat_of(seat) or seat
        # Called so often that attribute access of modules would take most of the time.
        layers = self.__dict__["_modules"]["own_layers"].__dict__["_modules"]
        name = seat.path.replace(".", "/")
        layer = layers.get(name)
        is_new = layer is None
        if layer is None:
            layer = layers[name] = build()
        # Weights of the base are cached only while planning: later they would keep it alive.
        base = weight_around(seat, {} if known is None else self._beside)
        return layer if base is None else place_layer(layer, base, is_new)

    def context_key(self, name: str) -> str:
        """Returns the context key of one of its values, such as `ip-adapter.tokens`."""
        return f"{self.key}.{name}"

    @property
    def scale_key(self) -> str:
        """The context key of its scale, a 0-d tensor or a `RowScale`; absent while it is
        inactive."""
        return self.context_key("scale")

    # --- used by a caller ---

    @property
    def is_worn(self) -> bool:
        """Whether a living tree, or a part of one, wears the adapter."""
        return bool(self._wearing())

    def inject(self, tree: Chain) -> Self:
        """Puts the adapter on a tree and returns the adapter; a failure leaves both unchanged.

        Args:
            tree: A model or a `Chain`.

        Raises:
            AdapterError: The adapter is worn already or is bound to another family, or `tree` is
                not a `Chain`.
            PlanError: The edits contradict the tree or other worn adapters, or the tree is running.
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
                swaps = plan.plan_inject(self._known, self, self._checked_edits(tree))
            self._swap("inject", tree, swaps)
        except BaseException:
            restore()
            raise
        finally:
            self._known, self._beside = None, {}
        return self

    def eject(self) -> Self:
        """Takes the adapter off, as if it had never been worn, and returns it.

        Raises:
            AdapterError: No living tree wears the adapter.
            PlanError: The tree was edited by hand, or is running.
        """
        chains = self._wearing()
        if not chains:
            raise AdapterError(f"{self.key} is not worn.", hint="Call its inject(model) first.")
        tree = self._tree() if self._tree is not None else None
        tree = chains[0] if tree is None else tree  # a part may live on without its model
        self._swap("eject", tree, plan.plan_eject(tree, chains, self))
        self._merged = None
        self.order, self.lane = natural(self.key), None
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
        """Swaps weights with another adapter of the same class and shapes, and returns itself.

        A tree that wears this adapter computes with the weights of the other from the next call:
        no tree is edited and nothing is recompiled. A second call swaps them back.

        Raises:
            AdapterError: The adapters differ in more than the values of weights; nothing was
                changed.
            PlanError: A tree that wears either adapter is running; nothing was changed.
        """
        plan.check_idle((*self._wearing(), *other._wearing()), f"swap weights of {self.key}")
        for adapter in (self, other):
            if adapter.merged_scale is not None:
                raise AdapterError(
                    f"{adapter.key} is merged, so its weights cannot be swapped.",
                    hint="Call its unmerge() first.",
                )
        hotswap(self, other, (self.key, other.key), self.outside)
        self.source, other.source = other.source, self.source
        self.origin, other.origin = other.origin, self.origin
        self.advice, other.advice = other.advice, self.advice
        return self

    def reserve(self, *others: Adapter) -> Self:
        """Makes room for the weights of other adapters and returns the adapter: `hotswap` with any
        of them then edits no tree and compiles nothing.

        Args:
            others: Adapters that differ in layers or sizes.

        Raises:
            AdapterError: Adapters of this class swap only with those of the same shapes.
        """
        raise AdapterError(
            f"{self.key} cannot make room for {', '.join(other.key for other in others)}: "
            f"a {type(self).__name__} swaps only with one of the same shapes.",
            hint="Eject the one and inject the other.",
        )

    def saved_path(self, folder: Path, name: str) -> Path:
        """Returns the path for `save` in a folder: by default a file `name.safetensors`.

        Args:
            folder: The folder.
            name: The name of the result, without an ending.
        """
        return folder / f"{name}.safetensors"

    def saved_files(self, path: Path) -> Mapping[str, Path]:
        """Returns the files that `save` writes to a path, by their names in the manifest.

        Args:
            path: The path that `save` is given.
        """
        return {"weights": path}

    def save(self, path: str | Path) -> None:
        """Writes its weights as safetensors in the layout that its family publishes.

        Raises:
            AdapterError: The adapter has no weights, or its family no published layout.
            WeightsError: The file cannot be written.
        """
        from refiners_core.weights import write

        write(self.published(), path)

    def _checked_edits(self, tree: Chain) -> tuple[Edit, ...]:
        merged = self._merged
        returned: Any = self.edits(tree) if merged is None else self.merged_edits(tree, merged)
        edits = tuple(returned) if isinstance(returned, Iterable) else (returned,)
        for edit in edits:
            if not isinstance(edit, Edit):
                raise PlanError(
                    f"edits() of {self.key} returned a {type(edit).__name__}, not edits.",
                    hint="Return what wrap, before, after, replace or remove return, joined by +.",
                )
        return edits

    def _swap(self, verb: str, tree: Chain, swaps: Sequence[Swap]) -> None:
        event = Surgery(self, tree)
        call(f"before_{verb}", event)
        undo = plan.apply(swaps)
        worn_by = self._tree, self._chains
        if verb == "inject":
            self._tree = weakref.ref(tree)
            self._chains = tuple([weakref.ref(swap.chain) for swap in swaps])
        else:
            self._tree, self._chains = None, ()
        try:
            call(f"after_{verb}", event)
        except BaseException:
            plan.apply(undo)
            self._tree, self._chains = worn_by
            raise

    def _worn_tree(self) -> Chain:
        tree = self._tree() if self._tree is not None else None
        if tree is None:
            raise AdapterError(f"{self.key} is not worn.", hint="Call its inject(model) first.")
        return tree

    def _wearing(self) -> list[Chain]:
        return [chain for ref in self._chains if (chain := ref()) is not None]

    def _bind(self, tree: Chain) -> None:
        family = str(getattr(tree, "base", type(tree).__name__))
        placement = tree.device, tree.dtype
        if self._bound_to is not None:
            if self._bound_to != family:
                raise AdapterError(
                    f"{self.key} was made for {self._bound_to}; this model is {family}.",
                    hint=f"Load another one for {family}.",
                )
            self._follow(placement)
            return
        self.source = self._choose_source(tree) if self._choose_source else None
        advice = None if self.source is None else self.source.advice
        if advice is not None and "advice" not in vars(self):
            self.advice = advice
        self._known = tree_index(tree)  # build() may call layer()
        try:
            self.build(tree, self.source)
        except MisfitError as error:
            files = self.source.files.values() if self.source else ()
            weights = (path.name for path in files if path.suffix != ".json")
            names = " and ".join(dict.fromkeys(weights)) or "the file"
            title = f"{names} does not fit {self.key} on this {family}"
            raise error.concerning(
                title, f"Fetch it again, or give a file that was made for {family}."
            ) from error
        self._bound_to, self._fitted = family, placement

    def _follow(self, new: tuple[torch.device, torch.dtype]) -> None:
        """Moves the layers to the device and dtype of the base; weights never move to or from the
        meta device."""
        old = self._fitted
        if old is not None and old != new and "meta" not in (old[0].type, new[0].type):
            self.to(*new)
            self._fitted = new

    def __repr__(self) -> str:
        tree = self._tree() if self._tree is not None else None
        family = None if tree is None else getattr(tree, "base", type(tree).__name__)
        by = f"worn by {family}" if family else "not worn"
        return f"<{type(self).__name__} {self.key}, {by}>"

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state for `deepcopy` and `pickle`: the adapter, not worn."""
        return self.__dict__ | {
            "_tree": None,
            "_chains": (),
            "_choose_source": None,
            "_merged": None,
            "order": natural(self.key),
            "lane": None,
            "preprocessors": None,
        }
