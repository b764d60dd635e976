"""Layers that keep values from one step of a generation to the next."""

from typing import Any, Final

from torch import nn

from refiners_core.tree.chain import Chain
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer


class Remember(Layer):
    """Keeps its input for the next steps under a key of `context.memory`, and passes it on."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key: Final = key

    def run(self, context: Context, *inputs: Any) -> Any:
        value: Any = inputs[0] if len(inputs) == 1 else inputs
        context.memory[self.key] = value
        return value

    def extra_repr(self) -> str:
        return repr(self.key)


class Recall(Chain):
    """Runs its children on the value that an earlier step remembered; returns None before.

    Inside a `Sum` or a `Residual`, a value that is absent adds nothing.

    Args:
        key: The key of `context.memory`; a value of None counts as absent.
        layers: The children; without any, the value itself is returned.
        named: Children with names.

    Example:
        >>> from refiners_core import Context
        >>> context = Context()
        >>> Recall("total")(5, context=context)
        >>> Remember("total")(3, context=context), Recall("total")(5, context=context)
        (3, 3)
    """

    def __init__(self, key: str, *layers: nn.Module, **named: nn.Module) -> None:
        super().__init__(*layers, **named)
        self.key: Final = key

    def run(self, context: Context, *inputs: Any) -> Any:
        value = context.memory.get(self.key)
        if value is None:
            return None
        return super().run(context, *value) if type(value) is tuple else super().run(context, value)

    def extra_repr(self) -> str:
        return repr(self.key)


class Reuse(Chain):
    """Returns the output of an earlier step in place of running its children, while a flag is set.

    Otherwise, and where nothing is remembered yet, it runs its children and remembers their output.

    Args:
        key: The key of `context.memory` for the output.
        layers: The children.
        on: The key of the context whose value, True or False, is the flag; absent counts as False.
            Set it in a layer before the UNet, so that compiled blocks see one of two values.
        named: Children with names.

    Example:
        >>> from refiners_core import Context, Lambda
        >>> double = Reuse("double", Lambda(lambda x: 2 * x), on="again")
        >>> first = Context()
        >>> double(3, context=first), double(5, context=Context({"again": True}, first.memory))
        (6, 6)
    """

    def __init__(self, key: str, *layers: nn.Module, on: str, **named: nn.Module) -> None:
        super().__init__(*layers, **named)
        self.key: Final = key
        self.on: Final = on

    def run(self, context: Context, *inputs: Any) -> Any:
        value = context.memory.get(self.key) if context.get(self.on) else None
        if value is None:
            value = super().run(context, *inputs)
            context.memory[self.key] = value
        return value

    def extra_repr(self) -> str:
        return f"{self.key!r}, on={self.on!r}"
