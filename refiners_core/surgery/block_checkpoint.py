"""Checkpointed blocks: their activations are computed again in the backward pass."""

import weakref
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from refiners_core.tree.chain import Chain
from refiners_core.tree.context import Context


def checkpoint_blocks(tree: nn.Module, kinds: tuple[type[Chain], ...]) -> None:
    """Checkpoints every block of the given classes; of nested blocks, the outermost.

    Args:
        tree: The tree, or an adapter, with the blocks.
        kinds: The classes of the blocks.
    """
    for block in _outermost(tree, kinds, set()):
        if not isinstance(block._compiled_call_impl, Recomputed):
            block._compiled_call_impl = Recomputed(block)


class Recomputed:
    """The call of a block that keeps its inputs alone for the backward pass.

    Inputs without gradients do not matter: an adapter inside the block gets its gradients all the
    same, since the layers and not the inputs decide.

    Args:
        block: The block.
    """

    def __init__(self, block: Chain) -> None:
        self.block: Final = weakref.ref(block)
        self.inner: Final = block._compiled_call_impl

    def __call__(self, *inputs: Any, context: Context | Mapping[str, Any] | None = None) -> Any:
        block = self.block()
        assert block is not None, "a block is called while it is alive"
        call: Any = self.inner or block._call_impl
        if not torch.is_grad_enabled():
            return call(*inputs, context=context)
        live = context if isinstance(context, Context) else Context(context)
        # What later layers write must not reach the second computation.
        before = live.scope()
        contexts = iter((live,))

        def run(*given: Any) -> Any:
            return call(*given, context=next(contexts, None) or before.scope())

        return checkpoint(run, *inputs, use_reentrant=False)


def _outermost(tree: nn.Module, kinds: tuple[type[Chain], ...], seen: set[int]) -> list[Chain]:
    if id(tree) in seen:
        return []
    seen.add(id(tree))
    if isinstance(tree, kinds):
        return [tree]
    return [block for child in tree.children() for block in _outermost(child, kinds, seen)]
