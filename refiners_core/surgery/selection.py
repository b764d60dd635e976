"""Where to operate: places in a tree, found by kind and position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from torch import nn

from refiners_core.errors import PlanError, SelectionError
from refiners_core.surgery.tree_index import ChainRef, Seat, TreeIndex, tree_index
from refiners_core.tree.chain import Chain

Stage = Literal["inputs", "branch", "output"]
"""When an edit that wraps a seat takes effect: what goes in, what stands beside, what comes out."""


class Edit(NamedTuple):
    """What becomes of each of some seats."""

    kind: Literal["wrap", "before", "after", "replace", "remove"]
    seats: tuple[Seat, ...]
    name: str
    stage: Stage
    make: Callable[..., nn.Module]


class Selection:
    """Seats of a tree and how they were asked for.

    Built by `select` and narrowed by its methods, each of which returns a new selection.
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
        """Keeps the seats whose base layer is of one of these kinds."""
        names = ", ".join(kind.__name__ for kind in kinds)
        question = f"{self.question}.of({names})"
        known: TreeIndex | None = self.tree.__dict__.get("_tree_index")
        if known is not None and self.seats is known.seats:  # asked of the whole tree
            return Selection(self.tree, known.of(kinds), question)
        return self._kept(lambda seat: issubclass(seat.kind, kinds), f"of({names})")

    def named(self, *names: str) -> Selection:
        """Keeps the seats of these names in their chains."""
        return self._kept(lambda seat: seat.name in names, f"named({', '.join(names)})")

    def where(self, is_wanted: Callable[[Seat], bool]) -> Selection:
        """Keeps the seats that a question of yours is true of."""
        return self._kept(is_wanted, f"where({getattr(is_wanted, '__name__', '...')})")

    def within(self, *kinds: type[Chain]) -> Selection:
        """Keeps the seats that lie inside a chain of one of these kinds."""
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
            SelectionError: There is none.
        """
        self._found(len(self.seats) > 0, "at least 1 seat")
        return Selection(self.tree, self.seats[:1], f"{self.question}.first()")

    def expect(self, count: int) -> Selection:
        """Returns itself if it has just `count` seats.

        Raises:
            SelectionError: It has another number.
        """
        self._found(len(self.seats) == count, f"{count} seats")
        return self

    # --- saying edits ---

    def wrap(
        self,
        make: Callable[[nn.Module, Seat], nn.Module],
        stage: Stage = "branch",
        name: str | None = None,
    ) -> tuple[Edit, ...]:
        """Says that each seat becomes `make(inner, seat)`; `inner` is what it wears so far."""
        if stage not in ("inputs", "branch", "output"):
            raise PlanError(
                f"no stage named {stage!r}; there are inputs, branch and output.",
                hint='Try stage="branch".',
            )
        return self._edits("wrap", make, name or stage, stage)

    def before(self, name: str, make: Callable[[Seat], nn.Module]) -> tuple[Edit, ...]:
        """Says that `make(seat)` runs before each seat."""
        return self._edits("before", make, name)

    def after(self, name: str, make: Callable[[Seat], nn.Module]) -> tuple[Edit, ...]:
        """Says that `make(seat)` runs after each seat."""
        return self._edits("after", make, name)

    def replace(self, make: Callable[[Seat], nn.Module], name: str = "replace") -> tuple[Edit, ...]:
        """Says that `make(seat)` runs in place of each seat's base layer."""
        return self._edits("replace", make, name)

    def remove(self) -> tuple[Edit, ...]:
        """Says that nothing runs in place of each seat."""
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

    def _found(self, is_right: bool, wanted: str) -> None:
        if not is_right:
            paths = ", ".join(seat.path for seat in self.seats[:8]) or "nothing"
            raise SelectionError(
                f"{self.question} should find {wanted} but finds {len(self.seats)}: {paths}.",
                hint="print() the selection or the tree to see what is there.",
            )


def select(tree: Chain) -> Selection:
    """Returns every place below a tree, in order, base layers only.

    What adapters added is not seen, whatever else is worn. A chain that sits in two places is
    entered once.

    Raises:
        SelectionError: It is no Chain.

    Example:
        >>> from refiners_core import Chain
        >>> select(Chain(nn.Linear(1, 1), nn.SiLU())).of(nn.Linear)[0].path
        'Linear_0'
    """
    if not isinstance(tree, Chain):  # pyright: ignore[reportUnnecessaryIsInstance]  users are not type-checked
        raise SelectionError(
            f"select() looks into a Chain, not into {type(tree).__name__}.",
            hint="Pass a model or a part of one.",
        )
    return Selection(tree, tree_index(tree).seats, f"select({type(tree).__name__})")


def _nothing(*_: Any) -> nn.Module:
    raise AssertionError("a removed seat makes no layer")
