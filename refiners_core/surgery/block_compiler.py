"""Compiled blocks: those that are printed alike share one compiled function.

Every chain runs the same code, so that compiled as they are, the blocks of a model would count
against one limit of recompilations, and so would every set of adapters. Here each kind of block,
with what it wears, has a function of its own, and a limit of its own.
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
from refiners_core.tree.show import show


def compile_blocks(tree: Chain, kinds: Sequence[type[Chain]], options: Mapping[str, Any]) -> None:
    """Has every block of some kinds compiled when it is first called, and again when it wears
    something that no block like it has worn.

    Args:
        tree: Where the blocks are; of those that lie in each other, the outermost are taken.
        kinds: Their classes.
        options: What `torch.compile` is told.
    """
    regions = Regions(options)
    blocks: dict[int, Chain] = {}
    for seat in select(tree).of(*kinds):
        if not any(id(chain) in blocks for chain in seat.above):
            blocks[id(seat.layer)] = seat.layer  # pyright: ignore[reportArgumentType]  it is a kind
    for block in blocks.values():
        block._compiled_call_impl = Call(block, regions)


class Regions:
    """The compiled functions of a tree, by what the blocks are printed as, and by their hooks.

    Args:
        options: What `torch.compile` is told.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options: Final = dict(options)
        self.functions: Final[dict[tuple[Any, ...], Callable[..., Any]]] = {}

    def of(self, block: Chain) -> Callable[..., Any]:
        """Returns the function that blocks like this one share."""
        key = show(block), *_hooks_of(block)
        function = self.functions.get(key)
        if function is None:
            name = f"{type(block).__name__}_{len(self.functions)}"
            function = torch.compile(_twin(_call, name), **self.options)
            self.functions[key] = function
        return function


class Call:
    """What stands in for the call of one block, without keeping it alive.

    Args:
        block: The block.
        regions: The compiled functions of its tree.
    """

    def __init__(self, block: Chain, regions: Regions) -> None:
        self.block: Final = weakref.ref(block)
        self.regions: Final = regions
        self.epoch = -1
        self.function: Callable[..., Any] = _call

    def __call__(self, *inputs: Any, context: Context | Mapping[str, Any] | None = None) -> Any:
        block = self.block()
        assert block is not None, "a block is called while it is alive"
        now = plan.epoch()
        if now != self.epoch:
            self.function, self.epoch = self.regions.of(block), now
        return self.function(block, inputs, context)


def _call(block: Chain, inputs: tuple[Any, ...], context: Any) -> Any:
    return block._call_impl(*inputs, context=context)


def _hooks_of(block: Chain) -> Iterator[tuple[Any, ...]]:
    """Yields the hooks of a block's parts.

    torch does not see whether a layer has hooks when it looks whether a compiled call fits: what
    was compiled for a block without any would be called for one with some.
    """
    for i, part in enumerate(block.modules()):
        state = part.__dict__
        for name in CALL_HOOKS:
            if state[name]:
                yield i, name, *state[name]  # numbers that torch gives out once


def _twin(function: Any, name: str) -> Callable[..., Any]:
    """Returns a function with code of its own, for that is what torch counts recompilations by."""
    code: CodeType = function.__code__.replace(co_name=name, co_qualname=name)
    return FunctionType(code, function.__globals__, name)
