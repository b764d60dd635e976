"""What takes part in a call: the protocol between a parent, its children and the context."""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from refiners_core.errors import TreeError
from refiners_core.tree.context import Context

# torch keeps the global hooks in these very dictionaries for the life of the process.
GLOBAL_FORWARD: Final[Mapping[int, Any]] = torch_module._global_forward_hooks
GLOBAL_FORWARD_PRE: Final[Mapping[int, Any]] = torch_module._global_forward_pre_hooks
GLOBAL_BACKWARD: Final[Mapping[int, Any]] = torch_module._global_backward_hooks
GLOBAL_BACKWARD_PRE: Final[Mapping[int, Any]] = torch_module._global_backward_pre_hooks

CALL_HOOKS: Final = frozenset(
    ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
)
"""Where a module keeps what is told of its calls."""

DEFERRED: Final[dict[str, Callable[[], Any]]] = {
    name: partial(copy, value)
    for name, value in nn.Module().__dict__.items()
    if name not in ("training", "_modules")
}
"""The state of a module that a chain has only once it is asked for, and what makes it, by name:
the chains that adapters make mostly have no weights and no hooks."""

_under_way: Final[list[nn.Module]] = []
"""The roots of the calls that are running now, in every thread: no state of any tree."""


@contextmanager
def running(root: nn.Module) -> Generator[None]:
    """Marks a tree as running for the length of a `with` block, so that nobody operates on it or
    on a part of it in the middle of several calls that belong together."""
    _under_way.append(root)
    try:
        yield
    finally:
        _under_way.remove(root)


def running_root(layers: Iterable[nn.Module]) -> nn.Module | None:
    """Returns the root of a running call that any of these layers takes part in, if there is
    one."""
    if not _under_way:
        return None
    ids = {id(layer) for layer in layers}
    for root in tuple(_under_way):
        if any(id(part) in ids for part in root.modules()):
            return root
    return None


def is_hooked(layer: nn.Module) -> bool:
    """Whether somebody has asked to be told about calls of this layer, or has put another
    `forward` on it.

    Such a layer is called through `nn.Module.__call__`; any other by its bound method, which is
    several times faster and indistinguishable.
    """
    own = layer.__dict__
    return bool(
        GLOBAL_FORWARD
        or GLOBAL_FORWARD_PRE
        or GLOBAL_BACKWARD
        or GLOBAL_BACKWARD_PRE
        or "forward" in own  # accelerate, for one, wraps forward on the instance
        or "_compiled_call_impl" in own
        or (
            "_forward_hooks" in own
            and (
                own["_forward_hooks"]
                or own["_forward_pre_hooks"]
                or own["_backward_hooks"]
                or own["_backward_pre_hooks"]
            )
        )
    )


class Layer(nn.Module):
    """A module that sees the context of the call.

    A subclass defines `run` and calls its children by `self.call`: that pair is the public door for
    new combinators. From outside a layer is called like any module: `layer(x, context={"key":
    value})`.

    Raises:
        TreeError: A subclass defines `forward`, which a parent would not call.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "forward" in cls.__dict__:
            raise TreeError(
                f"{cls.__name__} defines forward, which the layers around it would not call.",
                hint="Name it run(self, context, *inputs).",
            )

    def __getattr__(self, name: str) -> Any:
        if name in DEFERRED:
            self._complete(name)
            return self.__dict__[name]
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__  # without children, torch says what is wrong: no constructor has run
        if "_modules" in own and (name in DEFERRED or "_parameters" not in own):
            self._complete(name)
        super().__setattr__(name, value)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Adds a parameter to a chain, whose place for it torch would miss."""
        self._complete("_parameters")
        super().register_parameter(name, param)

    def register_buffer(
        self, name: str, tensor: torch.Tensor | None, persistent: bool = True
    ) -> None:
        """Adds a buffer to a chain, whose place for it torch would miss."""
        self._complete("_buffers")
        super().register_buffer(name, tensor, persistent)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _complete(self, asked: str) -> None:
        # Hooks of calls come all at once, and only when one of them is asked for: compiled calls
        # look whether they are there, and a look at weights must not change that.
        is_call = asked in CALL_HOOKS
        for name, make in DEFERRED.items():
            if (name in CALL_HOOKS) == is_call:
                self.__dict__.setdefault(name, make())

    def run(self, context: Context, *inputs: Any) -> Any:
        """Computes the outputs; what a subclass defines in place of `forward`."""
        raise TypeError(f"{type(self).__name__} defines no run(self, context, *inputs)")

    def call(self, child: nn.Module, context: Context, *inputs: Any) -> Any:
        """Calls a child with the context, its hooks included, and returns what it returns.

        A child that adapters have wrapped or replaced may still be said by its attribute,
        `self.call(self.attend, ...)`: what stands at its place is called.
        """
        worn = self.__dict__.get("_worn")
        if worn is not None:
            for base, name in worn.covered:
                if base is child:
                    child = self.at(name)  # pyright: ignore  (only chains wear anything)
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
        values._entered = True
        try:
            with running(self):
                return self.run(values, *inputs)
        except Exception as error:
            from refiners_core.tree.show import add_place  # only a failing call pays for the import

            add_place(error, self)
            raise
        finally:
            values._entered = False
