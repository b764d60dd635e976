"""What takes part in a call: the protocol between a parent, its children and the context."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from refiners_core.context import Context

# torch keeps the global hooks in these very dictionaries for the life of the process.
_global_hooks: tuple[Mapping[int, Any], ...] = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)


def is_hooked(layer: nn.Module) -> bool:
    """Whether somebody has asked to be told about calls of this layer.

    Such a layer is called through `nn.Module.__call__`; any other by its bound method, which is
    several times faster and indistinguishable.
    """
    own = layer.__dict__
    return bool(
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or _global_hooks[0]
        or _global_hooks[1]
        or _global_hooks[2]
        or _global_hooks[3]
        or own.get("_compiled_call_impl")
    )


class Layer(nn.Module):
    """A module that sees the context of the call.

    A subclass defines `run` and calls its children by `self.call`: that pair is the public door for
    new combinators. From outside a layer is called like any module: `layer(x, context={"key":
    value})`.
    """

    def run(self, context: Context, *inputs: Any) -> Any:
        """Computes the outputs; what a subclass defines in place of `forward`."""
        raise TypeError(f"{type(self).__name__} defines no run(self, context, *inputs)")

    def call(self, child: nn.Module, context: Context, *inputs: Any) -> Any:
        """Calls a child with the context, its hooks included, and returns what it returns."""
        if isinstance(child, Layer):
            return (
                child(*inputs, context=context) if is_hooked(child) else child.run(context, *inputs)
            )
        return child(*inputs) if is_hooked(child) else child.forward(*inputs)

    def forward(self, *inputs: Any, context: Context | Mapping[str, Any] | None = None) -> Any:
        """The door from outside.

        Args:
            inputs: Passed on to `run`.
            context: A mapping is copied into a new context. A `Context` is passed on as it is, so
                that what layers wrote can be read afterwards.
        """
        values = context if isinstance(context, Context) else Context(context)
        if torch.compiler.is_compiling() or values._entered:
            return self.run(values, *inputs)
        calls: list[Context] = self.__dict__.setdefault("_calls", [])
        calls.append(values)
        values._entered = True
        try:
            return self.run(values, *inputs)
        except Exception as error:
            from refiners_core.show import add_place  # only a failing call pays for the import

            add_place(error, self)
            raise
        finally:
            values._entered = False
            calls.remove(values)
