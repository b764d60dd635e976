"""Places that do not run while a flag is set."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from torch import nn

from refiners_core import Chain, Context, Edit, Seat, Selection, select
from refiners_core.models.diffusion import LatentDiffusion

RECORD: Final = "unet.skip.read"
SLOTS: Final = (
    *("unet.down", "unet.mid", "unet.up"),
    *("unet.residual", "unet.transformer", "unet.down.output", "unet.skip.write"),
    *("unet.down.downsample", "unet.skip.backbone", RECORD),
)
"""The slots whose places make up a UNet between any two skip connections, the largest first."""


class Idle(Chain):
    """Passes its input on while a flag is set, and runs its child otherwise.

    Args:
        on: The context key of the flag.
        is_source: Whether the child takes no input: it then returns None while the flag is set.
        inner: What runs otherwise.
    """

    inner: nn.Module

    def __init__(self, on: str, is_source: bool, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.on: Final = on
        self.is_source: Final = is_source

    def run(self, context: Context, *inputs: Any) -> Any:
        if not context.get(self.on):
            return self.call(self.inner, context, *inputs)
        return None if self.is_source else inputs[0]

    def extra_repr(self) -> str:
        return repr(self.on)


def idle_between(model: LatentDiffusion, first: Seat, last: Seat, on: str) -> Iterator[Edit]:
    """Yields the edits that skip all places of the UNet between two others while a flag is set.

    Args:
        model: The model.
        first: The last place that runs before.
        last: The first place that runs after.
        on: The context key of the flag.
    """
    order = {seat.path: index for index, seat in enumerate(select(model))}
    chosen: set[str] = set()

    def is_between(seat: Seat) -> bool:
        is_around = last.path.startswith(f"{seat.path}.")
        is_inside = any(seat.path.startswith(f"{path}.") for path in chosen)
        between = order[first.path] < order[seat.path] < order[last.path]
        return between and not is_around and not is_inside

    for slot in SLOTS:
        seats = model.slot(slot).where(is_between)
        if len(seats):
            yield from idle(seats, on, is_source=slot == RECORD)
        chosen |= {seat.path for seat in seats}


def idle(seats: Selection, on: str, *, is_source: bool = False) -> Iterable[Edit]:
    """Returns the edits that skip places while a flag is set."""

    def skipped(inner: nn.Module, seat: Seat) -> nn.Module:
        return Idle(on, is_source, inner)

    return seats.wrap(skipped, stage="around", name="idle")


def until(chain: Chain, name: str) -> Iterator[nn.Module]:
    """Yields the children of a chain before a place, with what adapters put there."""
    for label, child in chain.children_by_name():
        if label.partition("+")[0] == name:
            return
        yield child


def since(chain: Chain, name: str) -> Iterator[nn.Module]:
    """Yields the other children."""
    before = {id(child) for child in until(chain, name)}
    yield from (child for child in chain if id(child) not in before)


def keys_of(seats: Iterable[Seat], key: str) -> Mapping[str, str]:
    """Returns a context key for each place, by its path."""
    return {seat.path: f"{key}.{i}" for i, seat in enumerate(seats)}
