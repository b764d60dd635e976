"""The call protocol between a layer, its children and the context."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import nn
from torch.nn import Linear
from torch.nn.functional import linear
from torch.nn.modules.module import (  # dictionaries that torch keeps for its lifetime
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)

from refiners_core.errors import TreeError
from refiners_core.tree.context import Context

CALL_HOOKS: Final = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
"""The attributes in which a module stores the hooks of its calls."""

_under_way: Final[list[nn.Module]] = []
"""The roots of the calls that are running now, in all threads; trees stay stateless."""


@contextmanager
def running(root: nn.Module) -> Generator[None]:
    """Marks a tree as running for the length of a `with` block, so that no surgery on the tree or a
    part of it comes between calls that belong together."""
    _under_way.append(root)
    try:
        yield
    finally:
        _under_way.remove(root)


def running_root(layers: Iterable[nn.Module]) -> nn.Module | None:
    """Returns the root of a running call that involves any of these layers, or None."""
    if not _under_way:
        return None
    ids = {id(layer) for layer in layers}
    for root in tuple(_under_way):
        if any(id(part) in ids for part in root.modules()):
            return root
    return None


def run_child(child: nn.Module, context: Context, *inputs: Any) -> Any:
    """Calls a child of a chain, with the context if it is a `Layer`, and returns its output.

    A child without hooks is called by its bound method, and a linear layer by torch's function,
    which is several times faster than `nn.Module.__call__` and indistinguishable.
    """
    state = child.__dict__
    if (
        state["_forward_hooks"]
        or state["_forward_pre_hooks"]
        or state["_backward_hooks"]
        or state["_backward_pre_hooks"]
        or "forward" in state  # accelerate, for one, wraps forward on the instance
        or "_compiled_call_impl" in state
        or _global_forward_hooks
        or _global_forward_pre_hooks
        or _global_backward_hooks
        or _global_backward_pre_hooks
    ):
        return child(*inputs, context=context) if isinstance(child, Layer) else child(*inputs)
    if type(child) is Linear and len(inputs) == 1:
        weights = state["_parameters"]
        if (weight := weights.get("weight")) is not None:
            return linear(inputs[0], weight, weights.get("bias"))
    if not isinstance(child, Layer):
        return child.forward(*inputs)
    if context._places is not None and "_place" in state:  # a layer of an adapter
        return state["_place"].run(child, context, inputs)
    return child.run(context, *inputs)


class Layer(nn.Module):
    """A module that sees the context of the call.

    A subclass defines `run` and calls its children by `self.call`; new combinators need nothing
    else. Callers use a layer like any module: `layer(x, context={"key": value})`.

    Raises:
        TreeError: A subclass defines `forward`, which parents do not call.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "forward" in cls.__dict__:
            raise TreeError(
                f"{cls.__name__} defines forward, which the layers around it would not call.",
                hint="Name it run(self, context, *inputs).",
            )

    def run(self, context: Context, *inputs: Any) -> Any:
        """Computes the outputs; a subclass defines it in place of `forward`.

        Args:
            context: The values that travel with the call.
            inputs: The positional inputs of the call.

        Raises:
            TypeError: The subclass does not define it.
        """
        raise TypeError(f"{type(self).__name__} does not define run(self, context, *inputs)")

    def call(self, child: nn.Module, context: Context, *inputs: Any) -> Any:
        """Calls a child with the context, its hooks included, and returns its output.

        A base layer that adapters have wrapped or replaced may still be passed, as in
        `self.call(self.attend, ...)`: the call goes to the layer that runs in its place.
        """
        worn = self.__dict__.get("_worn")
        if worn is not None:
            for base, name in worn.covered:
                if base is child:
                    child = self.at(name)  # pyright: ignore  (only chains wear adapters)
        return run_child(child, context, *inputs)

    def forward(self, *inputs: Any, context: Context | Mapping[str, Any] | None = None) -> Any:
        """Calls the layer from outside a tree.

        An error is annotated with the place in the tree where it arose.

        Args:
            inputs: The positional inputs of `run`.
            context: The values that travel with the call. A mapping is copied into a new context; a
                `Context` is passed on as it is, so that values written by layers can be read later.
        """
        values = context if isinstance(context, Context) else Context(context)
        if torch.compiler.is_compiling() or values._entered:
            return self._run_in_place(values, inputs)
        values._entered = True
        try:
            with running(self):
                return self._run_in_place(values, inputs)
        except Exception as error:
            from refiners_core.tree.show import add_place  # only a failing call pays for the import

            add_place(error, self)
            raise
        finally:
            values._entered = False

    def _run_in_place(self, context: Context, inputs: tuple[Any, ...]) -> Any:
        """Runs the layer, with the scale of its place if the context has one."""
        place = None if context._places is None else self.__dict__.get("_place")
        return self.run(context, *inputs) if place is None else place.run(self, context, inputs)
