"""Compiled blocks: blocks that print alike share one compiled function.

Every chain runs the same code, so compiled as they are, all blocks of a model, under every set of
adapters, would count against one recompilation limit. Here each kind of block, with the adapters
that it wears, has a separate function and therefore a separate limit. So has each set of leading
sizes of 1, such as one row or one token, for which torch compiles separately in any case.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any, Final

import torch

from refiners_core.surgery import plan
from refiners_core.surgery.selection import select
from refiners_core.tree.chain import Chain
from refiners_core.tree.context import Context
from refiners_core.tree.layer import CALL_HOOKS
from refiners_core.tree.place import in_block
from refiners_core.tree.row_scale import keys_by_row
from refiners_core.tree.show import show


def compile_blocks(tree: Chain, kinds: Sequence[type[Chain]], options: Mapping[str, Any]) -> None:
    """Compiles every block of the given classes at its first call, and again when a new set of
    adapters is worn.

    Args:
        tree: The tree with the blocks; of nested blocks, the outermost is compiled.
        kinds: The classes of the blocks.
        options: The arguments of `torch.compile`.
    """
    regions = Regions(options)
    blocks: dict[int, Chain] = {}
    for seat in select(tree).of(*kinds):
        if not any(id(chain) in blocks for chain in seat.above):
            blocks[id(seat.layer)] = seat.layer  # pyright: ignore[reportArgumentType]  it is a kind
    for block in blocks.values():
        block._compiled_call_impl = Call(block, regions)


class Regions:
    """The compiled functions of a tree, by the printed form and the hooks of their blocks.

    Args:
        options: The arguments of `torch.compile`.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options: Final = dict(options)
        self.functions: Final[dict[tuple[Any, ...], Callable[..., Any]]] = {}

    def of(self, block: Chain, pattern: tuple[Any, ...] = ()) -> Callable[..., Any]:
        """Returns the compiled function that this block shares with those that print alike, in
        calls whose scales of adapters and sizes of 1 have one pattern."""
        key = show(block), pattern, *_hooks_of(block)
        function = self.functions.get(key)
        if function is None:
            name = f"{type(block).__name__}_{len(self.functions)}"
            function = torch.compile(_twin(_call, name), **self.options)
            self.functions[key] = function
        return function


class Call:
    """The compiled call of one block, which does not keep the block alive.

    Args:
        block: The block.
        regions: The compiled functions of the tree.
    """

    def __init__(self, block: Chain, regions: Regions) -> None:
        self.block: Final = weakref.ref(block)
        self.regions: Final = regions
        self.epoch = -1
        self.functions: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def __call__(self, *inputs: Any, context: Context | Mapping[str, Any] | None = None) -> Any:
        block = self.block()
        assert block is not None, "a block is called while it is alive"
        single = _single_sizes(inputs)
        if not isinstance(context, Context):
            return self._function(block, single)(block, inputs, context)
        pattern = (*single, *keys_by_row(context._values))
        if context._places is not None:
            with in_block(block, context) as places:
                return self._function(block, (*places, *pattern))(block, inputs, context)
        return self._function(block, pattern)(block, inputs, context)

    def _function(self, block: Chain, pattern: tuple[Any, ...]) -> Callable[..., Any]:
        now = plan.epoch()
        if now != self.epoch:
            self.functions, self.epoch = {}, now
        if pattern not in self.functions:
            self.functions[pattern] = self.regions.of(block, pattern)
        return self.functions[pattern]


def _call(block: Chain, inputs: tuple[Any, ...], context: Any) -> Any:
    return block._call_impl(*inputs, context=context)


def _single_sizes(inputs: tuple[Any, ...]) -> tuple[tuple[bool, ...], ...]:
    """Returns which of the first two sizes of each tensor are 1."""
    return tuple(
        tuple(size == 1 for size in x.shape[:2]) for x in inputs if isinstance(x, torch.Tensor)
    )


def _hooks_of(block: Chain) -> Iterator[tuple[Any, ...]]:
    """Yields the hooks of the layers of a block.

    The guards of torch.compile ignore hooks: a function compiled for a block without hooks would
    also serve a block with some, and skip them.
    """
    for i, part in enumerate(block.modules()):
        state = part.__dict__
        for name in CALL_HOOKS:
            if state[name]:
                yield i, name, *state[name]  # ids that torch never reuses


def _twin(function: Any, name: str) -> Callable[..., Any]:
    """Returns a copy of a function with a new code object, by which torch counts recompilations."""
    code: CodeType = function.__code__.replace(co_name=name, co_qualname=name)
    return FunctionType(code, function.__globals__, name)
