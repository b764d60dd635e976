"""A whole model: its components, and stable names for places in them."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Self

from torch import nn

from refiners_core.errors import ModelError, SelectionError, WeightsError
from refiners_core.origin import OriginOf
from refiners_core.surgery import plan
from refiners_core.surgery.adapter import Adapter
from refiners_core.surgery.block_checkpoint import checkpoint_blocks
from refiners_core.surgery.block_compiler import compile_blocks
from refiners_core.surgery.selection import Selection, select
from refiners_core.surgery.tree_index import Seat
from refiners_core.tree.chain import Chain
from refiners_core.tree.context import Context
from refiners_core.tree.role import record_roles
from refiners_core.weights import KeyMap, Transform


class Model(Chain):
    """A chain whose named children are components; `select(model)` searches all of them.

    A component may also be part of another, as a UNet is part of the tree of a denoising step; it
    is walked once.

    Args:
        base: The family that adapters and manifests name, such as `sd15`.
        facts: The values that variants of adapters must match, such as `cross_attention_dim`.
        slots: For each stable name, a function that returns its places in the model.
        layouts: The layout in which each part is published, by the path of the part.
        components: The components by name, in printing order.

    Raises:
        TreeError: The name of a component is an attribute of `Model`.
    """

    repeated: ClassVar[tuple[type[Chain], ...]] = ()
    """The classes of the repeated blocks, which `compile` compiles; each family defines them."""
    origin: OriginOf | None = None
    """Returns the package and the files it comes from, for the recipe of a picture."""

    def __init__(
        self,
        *,
        base: str,
        facts: Mapping[str, Any],
        slots: Mapping[str, Callable[[Any], Selection]],
        layouts: Mapping[str, KeyMap] | None = None,
        **components: nn.Module,
    ) -> None:
        super().__init__(**components)
        record_roles(self)
        self.base: Final = base
        self.facts: Final[Mapping[str, Any]] = dict(facts)
        self.slots: Final[Mapping[str, Callable[[Any], Selection]]] = dict(slots)
        self.layouts: Final[Mapping[str, KeyMap]] = dict(layouts or {})

    def run(self, context: Context, *inputs: Any) -> Any:
        raise ModelError(
            f"{type(self).__name__} is not called as a whole.",
            hint="Use generate(prompt), or call a component: model.unet(latents, context={...}).",
        )

    # --- places -----------------------------------------------------------------------------

    def slot(self, name: str) -> Selection:
        """Returns the places of a stable name, in execution order.

        Args:
            name: A name in `slots`, such as `unet.up`; with a number, as in `unet.up.0`, only the
                place at this position in execution order, from 0.

        Raises:
            SelectionError: The family does not publish the name, or the slot has fewer places.
        """
        find = self.slots.get(name)
        slot, _, index = name.rpartition(".")
        if find is None and slot in self.slots and index.isdecimal():
            seats = self.slot(slot).seats
            if int(index) >= len(seats):
                raise SelectionError(
                    f"{self.base} has {len(seats)} places of {slot!r}, so no {name!r}.",
                    hint=f"They count from 0, up to {slot}.{len(seats) - 1}.",
                )
            return Selection(self, seats[int(index) :][:1], f"{self.base}.slot({name!r})")
        if find is None:
            near = difflib.get_close_matches(name, self.slots, 1)
            raise SelectionError(
                f"{self.base} has no slot {name!r}; it has {', '.join(self.slots) or 'none'}.",
                hint=f"Did you mean {near[0]!r}?"
                if near
                else "select(model) finds places without a slot.",
            )
        return Selection(self, find(self).seats, f"{self.base}.slot({name!r})")

    def published_places(
        self, name: str
    ) -> dict[str, dict[str, tuple[tuple[Seat, Transform], ...]]]:
        """Returns the places of a slot by the names under which their layers are published.

        Files of adapters name layers so. A published layer may be several of the model, as the
        fused projection of queries, keys and values is; the transform describes the share of each.

        Args:
            name: A name in `slots`, such as `decoder.linear`.

        Returns:
            For the path of each published part, and for each published name in it, such as
            `model.layers.0.mlp.down_proj`, the places in the order of their shares. Places without
            a published name are left out.

        Raises:
            SelectionError: The family does not publish the slot.
        """
        places: dict[str, dict[str, list[tuple[Seat, Transform]]]] = {}
        for seat in self.slot(name):
            around = [part for part in self.layouts if seat.path.startswith(f"{part}.")]
            if not around:
                continue
            part = max(around, key=len)
            path, layout = seat.path.removeprefix(f"{part}."), self.layouts[part]
            try:
                place = layout.place(f"{path}.weight")
            except WeightsError:  # a layer that a derived model adds
                continue
            key = layout.layers.get(path, place.key.removesuffix(".weight"))
            places.setdefault(part, {}).setdefault(key, []).append((seat, place.transform))
        return {
            part: {
                key: tuple(sorted(seats, key=lambda pair: pair[1].share))
                for key, seats in named.items()
            }
            for part, named in places.items()
        }

    # --- generation -------------------------------------------------------------------------

    def check(self, prompt: Any, **arguments: Any) -> None:
        """Checks the arguments of a generation as far as possible without weights.

        A model on the meta device suffices, so invalid arguments are refused before any download.
        A family that generates overrides this; the default accepts everything.

        Raises:
            GenerationError, ConditionError: An argument is invalid.
        """

    # --- speed ------------------------------------------------------------------------------

    def compile(  # pyright: ignore[reportIncompatibleMethodOverride]  torch's signature is wider
        self, *, fullgraph: bool = True, dynamic: bool | None = None, **options: Any
    ) -> None:
        """Compiles the repeated blocks, each kind once, at their first call.

        Blocks that print alike share one compiled function: for the first size that they see, then
        for all sizes; one row and one token have separate ones. A new set of worn adapters is
        compiled at its first call; ejecting, injecting again and `hotswap` compile nothing. Side
        networks of adapters and layers between the blocks are not compiled. Set hooks on blocks and
        on their parts before the first call.

        Args:
            fullgraph: Whether a graph break inside a block is an error.
            dynamic: Whether one compiled function serves all sizes; None means from the second size
                on. With False, the ninth size of a block is an error.
            options: Further arguments of `torch.compile`, such as `backend` or `mode`.

        Raises:
            ModelError: The family does not define `repeated`.
        """
        self._check_repeats(", or torch.compile() a part of the model")
        compile_blocks(self, self.repeated, {"fullgraph": fullgraph, "dynamic": dynamic, **options})

    def checkpoint_blocks(self) -> None:
        """Computes the repeated blocks once more in the backward pass, to keep less in memory.

        It concerns the blocks of the model and those of the adapters that it wears now, such as the
        side network of a ControlNet. Gradients stay the same. Passes without gradients cost
        nothing.

        Raises:
            ModelError: The family does not define `repeated`.
        """
        self._check_repeats()
        for tree in (self, *self.adapters):
            checkpoint_blocks(tree, self.repeated)

    def _check_repeats(self, otherwise: str = "") -> None:
        """Checks that the family defines its repeated blocks; the hint may name another way."""
        if not self.repeated:
            raise ModelError(
                f"{type(self).__name__} does not define which of its blocks repeat.",
                hint=f"List their classes in `repeated`{otherwise}.",
            )

    # --- worn adapters ----------------------------------------------------------------------

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """The adapters worn anywhere in the model, sorted by family and number."""
        return tuple([worn for worn in plan.worn(self) if isinstance(worn, Adapter)])

    def eject_all(self) -> Self:
        """Ejects every adapter and returns the model.

        Raises:
            PlanError: An adapter cannot be ejected now; none was ejected.
        """
        worn = self.adapters
        chains = [self, *(seat.layer for seat in select(self) if isinstance(seat.layer, Chain))]
        for adapter in worn:
            plan.plan_eject(self, chains, adapter)
        for adapter in worn:
            adapter.eject()
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Implements `to` and `half`; encoders that adapters keep outside the tree follow."""
        super()._apply(fn, recurse)
        inside = {id(layer) for layer in self.modules()}
        for adapter in self.adapters:
            for layer in adapter.modules():
                if id(layer) not in inside:
                    layer._apply(fn, recurse=False)
        return self

    def extra_repr(self) -> str:
        return repr(self.base)
