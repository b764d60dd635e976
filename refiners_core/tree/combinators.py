"""Chains whose names describe how values flow through them."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from refiners_core.errors import TreeError
from refiners_core.tree.chain import Chain
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer, run_child

Identity = nn.Identity


class Sum(Chain):
    """Adds the outputs of its children for the same inputs; an output of None adds nothing."""

    def run(self, context: Context, *inputs: Any) -> Any:
        total: Any = None
        for child in self.__dict__["_modules"].values():
            term = run_child(child, context, *inputs)
            if term is not None:
                total = term if total is None else total + term
        return total


class Residual(Chain):
    """Adds its input to the output of its children run in sequence: `x + f(x)`."""

    def run(self, context: Context, *inputs: Any) -> Any:
        value = super().run(context, *inputs)
        return inputs[0] if value is None else inputs[0] + value


class Parallel(Chain):
    """Passes the same inputs to every child and returns the tuple of their outputs."""

    def run(self, context: Context, *inputs: Any) -> tuple[Any, ...]:
        children = self.__dict__["_modules"].values()
        return tuple([run_child(child, context, *inputs) for child in children])


class Distribute(Chain):
    """Passes its i-th input to its i-th child and returns the tuple of the outputs.

    Raises:
        TreeError: A call has another number of inputs than there are children.
    """

    def run(self, context: Context, *inputs: Any) -> tuple[Any, ...]:
        children = self.__dict__["_modules"].values()
        if len(inputs) != len(children):
            raise TreeError(
                f"Distribute has {len(children)} children but got {len(inputs)} inputs.",
                hint="Pass one input per child, or use Parallel to pass all inputs to every child.",
            )
        return tuple(
            [
                run_child(child, context, value)
                for child, value in zip(children, inputs, strict=True)
            ]
        )


class Concatenate(Chain):
    """Concatenates the outputs of its children for the same inputs along a dimension; an output of
    None adds nothing.

    Args:
        layers: The children.
        dim: The dimension to concatenate along.
        named: Children with names.
    """

    def __init__(self, *layers: nn.Module, dim: int = 1, **named: nn.Module) -> None:
        super().__init__(*layers, **named)
        self.dim: Final = dim

    def run(self, context: Context, *inputs: Any) -> Tensor:
        children = self.__dict__["_modules"].values()
        parts = [run_child(child, context, *inputs) for child in children]
        return torch.cat([part for part in parts if part is not None], dim=self.dim)

    def extra_repr(self) -> str:
        return "" if self.dim == 1 else f"dim={self.dim}"


class Passthrough(Chain):
    """Runs its children for their effect on the context and returns its own inputs."""

    def run(self, context: Context, *inputs: Any) -> Any:
        super().run(context, *inputs)
        return inputs[0] if len(inputs) == 1 else inputs


class When(Chain):
    """Runs its children only if the context has a value for a key; otherwise returns None.

    Inside a `Sum`, an inactive branch costs nothing and leaves the sum bit for bit unchanged.

    Args:
        key: The key of the context; a value of None counts as absent.
        layers: The children.
        named: Children with names.
    """

    def __init__(self, key: str, *layers: nn.Module, **named: nn.Module) -> None:
        super().__init__(*layers, **named)
        self.on: Final = key

    def run(self, context: Context, *inputs: Any) -> Any:
        return None if context.get(self.on) is None else super().run(context, *inputs)

    def extra_repr(self) -> str:
        return repr(self.on)


class Scope(Chain):
    """Confines the context writes of its children, and can rebind the keys that they read.

    Args:
        layers: The children.
        rebind: For each key inside, the key outside that supplies its value.
        named: Children with names.

    Example:
        >>> Scope(UseContext("text"), rebind={"text": "identity"})(None, context={"identity": 1})
        1
    """

    def __init__(
        self, *layers: nn.Module, rebind: Mapping[str, str] | None = None, **named: nn.Module
    ) -> None:
        super().__init__(*layers, **named)
        self.rebind: Final[dict[str, str]] = dict(rebind or {})

    def run(self, context: Context, *inputs: Any) -> Any:
        return super().run(context.scope(self.rebind, memory=context.memory), *inputs)

    def extra_repr(self) -> str:
        return ", ".join(f"{inside}={outside}" for inside, outside in self.rebind.items())


class UseContext(Layer):
    """Returns the context's value of a key and ignores its inputs.

    Raises:
        ContextError: The context of a call does not have the key.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key: Final = key

    def run(self, context: Context, *inputs: Any) -> Any:
        return context[self.key]

    def extra_repr(self) -> str:
        return repr(self.key)


class SetContext(Layer):
    """Stores its input in the context under a key and passes it on."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key: Final = key

    def run(self, context: Context, *inputs: Any) -> Any:
        value: Any = inputs[0] if len(inputs) == 1 else inputs
        context[self.key] = value
        return value

    def extra_repr(self) -> str:
        return repr(self.key)


class Multiply(Layer):
    """Multiplies its input by a value of the context: a 0-d tensor or a number, such as the scale
    of an adapter.

    Raises:
        ContextError: The context of a call does not have the key.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key: Final = key

    def run(self, context: Context, *inputs: Any) -> Any:
        return inputs[0] * context[self.key]

    def extra_repr(self) -> str:
        return repr(self.key)


class Lambda(nn.Module):
    """A function as a layer; a module-level function keeps the tree picklable.

    Raises:
        TreeError: `function` is not callable, or is an `nn.Module`, which is a layer already.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        if isinstance(function, nn.Module) or not callable(function):
            raise TreeError(
                f"Lambda takes a function, not a {type(function).__name__}.",
                hint="A module is a layer already: put it into the chain itself.",
            )
        self.function: Final = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)

    def extra_repr(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))
