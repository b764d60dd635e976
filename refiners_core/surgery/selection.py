"""Selections: places in a tree, chosen by class and position, and the edits of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, get_args

from torch import nn

from refiners_core.errors import PlanError, SelectionError
from refiners_core.surgery.tree_index import ChainRef, Seat, TreeIndex, tree_index
from refiners_core.tree.chain import Chain

Stage = Literal["inputs", "branch", "output", "around"]
"""The order of wraps of a seat, innermost first: `inputs` transforms the inputs of the layer,
`branch` adds to its output, `output` transforms the sum, `around` decides whether all of it runs,
with the layers before and after the seat."""


class Edit(NamedTuple):
    """An edit of some seats, as `Selection.wrap` and its siblings make it."""

    kind: Literal["wrap", "before", "after", "replace", "remove"]
    seats: tuple[Seat, ...]
    name: str
    stage: Stage
    make: Callable[..., nn.Module]


class Selection:
    """Seats of a tree, and the query that selected them.

    `select` makes a selection; each narrowing method returns a new one. The edit methods return
    edits, which take effect when an adapter that returns them from `edits` is injected.
    """

    def __init__(self, tree: Chain, seats: tuple[Seat, ...], question: str) -> None:
        self.tree = tree
        self.seats = seats
        self.question = question

    def __iter__(self) -> Iterator[Seat]:
        return iter(self.seats)

    def __len__(self) -> int:
        return len(self.seats)

    def __getitem__(self, index: int) -> Seat:
        return self.seats[index]

    def __repr__(self) -> str:
        rows = [f"  {seat.path}: {seat.kind.__name__}" for seat in self.seats]
        return "\n".join([f"{self.question}: {len(rows)} seats", *rows])

    # --- narrowing ---

    def of(self, *kinds: type[nn.Module]) -> Selection:
        """Keeps the seats whose base layer is an instance of one of these classes."""
        names = ", ".join(kind.__name__ for kind in kinds)
        question = f"{self.question}.of({names})"
        known: TreeIndex | None = self.tree.__dict__.get("_tree_index")
        if known is not None and self.seats is known.seats:  # the selection is the whole tree
            return Selection(self.tree, known.of(kinds), question)
        return self._kept(lambda seat: issubclass(seat.kind, kinds), f"of({names})")

    def named(self, *names: str) -> Selection:
        """Keeps the seats with one of these names in their chain."""
        return self._kept(lambda seat: seat.name in names, f"named({', '.join(names)})")

    def where(self, is_wanted: Callable[[Seat], bool]) -> Selection:
        """Keeps the seats for which the predicate holds."""
        return self._kept(is_wanted, f"where({getattr(is_wanted, '__name__', '...')})")

    def within(self, *kinds: type[Chain]) -> Selection:
        """Keeps the seats inside a chain of one of these classes, at any depth."""
        names = ", ".join(kind.__name__ for kind in kinds)
        known: dict[ChainRef | None, bool] = {None: False}

        def is_inside(spot: ChainRef | None) -> bool:
            if spot is not None and spot not in known:
                known[spot] = issubclass(spot.kind, kinds) or is_inside(spot.outer)
            return known[spot]

        return self._kept(lambda seat: is_inside(seat.spot), f"within({names})")

    def first(self) -> Selection:
        """Keeps the first seat.

        Raises:
            SelectionError: The selection is empty.
        """
        self._require(len(self.seats) > 0, "at least 1 seat")
        return Selection(self.tree, self.seats[:1], f"{self.question}.first()")

    def expect(self, count: int) -> Selection:
        """Returns the selection itself if it has exactly `count` seats.

        Raises:
            SelectionError: The selection has another number of seats.
        """
        self._require(len(self.seats) == count, f"{count} seats")
        return self

    # --- edits ---

    def wrap(
        self,
        make: Callable[[nn.Module, Seat], nn.Module],
        stage: Stage = "branch",
        name: str | None = None,
    ) -> tuple[Edit, ...]:
        """Wraps the layer of each seat: `inner` becomes `make(inner, seat)`.

        Args:
            make: Returns the layer to run, from the layer so far (the base layer, or the wrap of an
                adapter inside this one) and the seat. It is called when an adapter is injected or
                ejected, and must not change `inner`.
            stage: The order among wraps of the same seat: `inputs`, then `branch`, then `output`,
                then `around`, whose `inner` includes the layers before and after the seat.
            name: The name of the edit in names of layers; the stage by default.

        Raises:
            PlanError: No such stage, or the name is empty or contains a dot.
        """
        if stage not in get_args(Stage):
            raise PlanError(
                f"no stage named {stage!r}; the stages are inputs, branch, output and around.",
                hint='Try stage="branch".',
            )
        return self._edits("wrap", make, name or stage, stage)

    def before(self, name: str, make: Callable[[Seat], nn.Module]) -> tuple[Edit, ...]:
        """Runs `make(seat)` before the layer of each seat.

        Args:
            name: The name of the edit in names of layers.
            make: Returns the layer to run; its output becomes the input of the seat.

        Raises:
            PlanError: The name is empty or contains a dot.
        """
        return self._edits("before", make, name)

    def after(self, name: str, make: Callable[[Seat], nn.Module]) -> tuple[Edit, ...]:
        """Runs `make(seat)` after the layer of each seat.

        Args:
            name: The name of the edit in names of layers.
            make: Returns the layer to run; its input is the output of the seat.

        Raises:
            PlanError: The name is empty or contains a dot.
        """
        return self._edits("after", make, name)

    def replace(self, make: Callable[[Seat], nn.Module], name: str = "replace") -> tuple[Edit, ...]:
        """Replaces the base layer of each seat by `make(seat)`; only one adapter can replace a
        seat.

        Args:
            make: Returns the layer to run.
            name: The name of the edit in names of layers.

        Raises:
            PlanError: The name is empty or contains a dot.
        """
        return self._edits("replace", make, name)

    def remove(self) -> tuple[Edit, ...]:
        """Removes the layer of each seat; only one adapter can remove a seat."""
        return self._edits("remove", _nothing, "remove")

    def _edits(
        self,
        kind: Literal["wrap", "before", "after", "replace", "remove"],
        make: Callable[..., nn.Module],
        name: str,
        stage: Stage = "branch",
    ) -> tuple[Edit, ...]:
        if not name or "." in name:
            raise PlanError(f"{name!r} cannot name an edit.", hint='Try a word, e.g. name="lora".')
        return (Edit(kind, self.seats, name, stage, make),)

    def _kept(self, is_wanted: Callable[[Seat], bool], step: str) -> Selection:
        return Selection(
            self.tree, tuple([s for s in self.seats if is_wanted(s)]), f"{self.question}.{step}"
        )

    def _require(self, is_right: bool, expected: str) -> None:
        if not is_right:
            paths = ", ".join(seat.path for seat in self.seats[:8]) or "nothing"
            raise SelectionError(
                f"{self.question} should find {expected} but finds {len(self.seats)}: {paths}.",
                hint="print() the selection or the tree to see its layers.",
            )


def select(tree: Chain) -> Selection:
    """Returns every place below a tree, in order.

    Only base layers are selected, whatever adapters are worn. A chain in two places is entered
    once.

    Raises:
        SelectionError: `tree` is not a `Chain`.

    Example:
        >>> from refiners_core import Chain
        >>> select(Chain(nn.Linear(1, 1), nn.SiLU())).of(nn.Linear)[0].path
        'Linear_0'
    """
    if not isinstance(tree, Chain):  # pyright: ignore[reportUnnecessaryIsInstance]  users are not type-checked
        raise SelectionError(
            f"select() takes a Chain, not a {type(tree).__name__}.",
            hint="Pass a model or a part of one.",
        )
    return Selection(tree, tree_index(tree).seats, f"select({type(tree).__name__})")


def _nothing(*_: Any) -> nn.Module:
    raise AssertionError("remove() never makes a layer")
