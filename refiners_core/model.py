"""A whole model: its components, and the stable names of places in them."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Self

from torch import nn

from refiners_core.errors import ModelError, SelectionError
from refiners_core.surgery import plan
from refiners_core.surgery.adapter import Adapter
from refiners_core.surgery.block_compiler import compile_blocks
from refiners_core.surgery.selection import Selection, select
from refiners_core.tree.chain import Chain
from refiners_core.tree.context import Context


class Model(Chain):
    """A chain whose named children are components; each is a place too, so `select(model)` works.

    A component may also sit inside another one, as a UNet does in the tree of a denoising step: it
    is walked once.

    Args:
        base: The family that adapters and manifests name, such as `sd15`.
        facts: What variants of adapters are compared with, such as `cross_attention_dim`.
        slots: For each stable name, how to find its places.
        components: The parts, by name, in the order in which they are printed.

    Raises:
        TreeError: A component's name is an attribute of models.
    """

    repeated: ClassVar[tuple[type[Chain], ...]] = ()
    """The kinds of blocks that it has many of, which `compile` compiles; a family says its own."""

    def __init__(
        self,
        *,
        base: str,
        facts: Mapping[str, Any],
        slots: Mapping[str, Callable[[Any], Selection]],
        **components: nn.Module,
    ) -> None:
        super().__init__(**components)
        self.base: Final = base
        self.facts: Final[Mapping[str, Any]] = dict(facts)
        self.slots: Final[Mapping[str, Callable[[Any], Selection]]] = dict(slots)

    def run(self, context: Context, *inputs: Any) -> Any:
        raise ModelError(
            f"{type(self).__name__} is not called as a whole.",
            hint="Use generate(prompt), or call a component: model.unet(latents, context={...}).",
        )

    # --- places -----------------------------------------------------------------------------

    def slot(self, name: str) -> Selection:
        """Returns the places of a stable name, in execution order.

        Raises:
            SelectionError: This family publishes no such name.
        """
        find = self.slots.get(name)
        if find is None:
            near = difflib.get_close_matches(name, self.slots, 1)
            raise SelectionError(
                f"{self.base} has no slot {name!r}; it has {', '.join(self.slots) or 'none'}.",
                hint=f"Did you mean {near[0]!r}?"
                if near
                else "select(model) finds places without a slot.",
            )
        return Selection(self, find(self).seats, f"{self.base}.slot({name!r})")

    # --- generation -------------------------------------------------------------------------

    def check(self, prompt: Any, **arguments: Any) -> None:
        """Checks the arguments of a generation as far as they can be without weights.

        A model on the meta device does, so what cannot work is refused before anything is fetched.
        A family that generates overrides this; others refuse nothing.

        Raises:
            GenerationError, ConditionError: An argument cannot be followed.
        """

    # --- speed ------------------------------------------------------------------------------

    def compile(  # pyright: ignore[reportIncompatibleMethodOverride]  torch's says less
        self, *, fullgraph: bool = True, dynamic: bool | None = None, **options: Any
    ) -> None:
        """Has its repeated blocks compiled, each kind once, when they are first called.

        Blocks that are printed alike share what is compiled: for the first size that they see, then
        for all sizes. A set of adapters that was not worn before is compiled when it is first
        called; ejecting, injecting again and `hotswap` compile nothing. Side networks of adapters,
        and what lies between the blocks, run as they are. Hooks on blocks and on their parts are
        set before the first call.

        Args:
            fullgraph: Whether a block that is not one graph is an error.
            dynamic: Whether sizes may vary within what is compiled, from the second one on if None;
                with False the ninth size of a block is an error.
            options: What `torch.compile` is told besides, such as `backend` or `mode`.

        Raises:
            ModelError: Its family does not say which blocks repeat.
        """
        if not self.repeated:
            raise ModelError(
                f"{type(self).__name__} does not say which of its blocks repeat.",
                hint="Name their classes in its `repeated`, or torch.compile() a part of it.",
            )
        compile_blocks(self, self.repeated, {"fullgraph": fullgraph, "dynamic": dynamic, **options})

    # --- what it wears ----------------------------------------------------------------------

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """The adapters worn anywhere in it, sorted by family and number."""
        return tuple([worn for worn in plan.worn(self) if isinstance(worn, Adapter)])

    def eject_all(self) -> Self:
        """Takes off every adapter and returns the model.

        Raises:
            PlanError: One of them cannot be ejected now; then none was.
        """
        worn = self.adapters
        chains = [self, *(seat.layer for seat in select(self) if isinstance(seat.layer, Chain))]
        for adapter in worn:
            plan.plan_eject(self, chains, adapter)
        for adapter in worn:
            adapter.eject()
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """What `to` and `half` are made of; encoders that adapters keep outside the tree follow."""
        super()._apply(fn, recurse)
        inside = {id(layer) for layer in self.modules()}
        for adapter in self.adapters:
            for layer in adapter.modules():
                if id(layer) not in inside:
                    layer._apply(fn, recurse=False)
        return self

    def extra_repr(self) -> str:
        return repr(self.base)
