"""Models as declarative trees of named layers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

import torch
from torch import nn

from refiners_core.errors import TreeError
from refiners_core.tree.bare_tree import bare_children, bare_walk, first_weight, hidden
from refiners_core.tree.context import Context
from refiners_core.tree.editing import Editable
from refiners_core.tree.layer import run_child
from refiners_core.tree.naming import checked_module, checked_name

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


class Chain(Editable):
    """Layers that run one after the other; the base class of every combinator.

    A tuple that a layer returns becomes the inputs of the next one. A subclass declares its tree in
    one call of `super().__init__` and defines neither `forward` nor `run`: the printed tree is
    what runs.

    Args:
        layers: Children, named `ClassName_i` by their position.
        named: Children by name, after the positional ones.

    Raises:
        TreeError: A name is taken or is an attribute of `Chain`, or a child is not an `nn.Module`.

    Example:
        >>> chain = Chain(nn.Linear(4, 8), nn.SiLU(), out=nn.Linear(8, 2))
        >>> [name for name, _ in chain.children_by_name()]
        ['Linear_0', 'SiLU_1', 'out']
    """

    # The `Overlay` that the chain wears; not in the instance while the chain is bare.
    _worn: Any = None

    def __init__(self, *layers: nn.Module, **named: nn.Module) -> None:
        children = {f"{type(layer).__name__}_{i}": layer for i, layer in enumerate(layers)}
        for name, layer in children.items():
            checked_module(self, name, layer)
        for name, layer in named.items():
            children[checked_name(self, children, name, layer)] = layer
        super().__init__()
        self.__dict__["_modules"] = children

    def run(self, context: Context, *inputs: Any) -> Any:
        value: Any = inputs[0] if len(inputs) == 1 else inputs
        for child in self.__dict__["_modules"].values():
            value = (
                run_child(child, context, *value)
                if type(value) is tuple
                else run_child(child, context, value)
            )
        return value

    # --- reading ---

    def children_by_name(self) -> Iterator[tuple[str, nn.Module]]:
        """Yields the names and children of the chain as it runs, layers of adapters included."""
        yield from self._modules.items()  # pyright: ignore[reportReturnType]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[nn.Module]:
        yield from self._modules.values()  # pyright: ignore[reportReturnType]

    def __contains__(self, layer: object) -> bool:
        return any(child is layer for child in self._modules.values())

    def __getitem__(self, where: int | str | slice) -> Any:
        """Returns a child by position or path; a slice returns a plain `Chain` of the same layers.

        Raises:
            TreeError: No such child.
        """
        items = list(self.children_by_name())
        if isinstance(where, slice):
            part = Chain()
            part.__dict__["_modules"] = dict(items[where])
            part.training = self.training
            return part
        if isinstance(where, str):
            return self.layer(where)
        try:
            return items[where][1]
        except IndexError:
            raise TreeError(
                f"{type(self).__name__} has {len(items)} layers, so no layer {where}.",
                hint="Positions count from 0, up to len(chain) - 1.",
            ) from None

    def __getattr__(self, name: str) -> Any:
        modules = self.__dict__.get("_modules", {})
        if name in modules:
            return modules[name]
        worn = self.__dict__.get("_worn")
        if worn is not None and name in worn.bare:  # a base layer inside an adapter's layer
            return worn.bare[name]
        return super().__getattr__(name)

    def layer(self, path: str, kind: type[M] = nn.Module) -> M:
        """Returns the layer at a dotted path.

        Args:
            path: Names of children joined by dots, such as `down.0.attention`; base layers are
                found under their names whatever adapters are worn.
            kind: The class that the layer must have.

        Raises:
            TreeError: No such path, or its layer is not of this class.
        """
        layer: nn.Module = self
        for name in path.split("."):
            children = {**layer._modules, **bare_children(layer)}
            child = children.get(name)
            if child is None:
                near = difflib.get_close_matches(name, children, 1)
                hint = (
                    f"Did you mean {near[0]!r}?" if near else "print() the tree to see its names."
                )
                raise TreeError(
                    f"no layer named {name!r} in {type(layer).__name__} (path {path!r}); it has "
                    f"{', '.join(children) or 'no children'}.",
                    hint=hint,
                )
            layer = child
        if not isinstance(layer, kind):
            raise TreeError(
                f"the layer at {path!r} is a {type(layer).__name__}, not a {kind.__name__}.",
                hint=f"Try select(tree).of({kind.__name__}).",
            )
        return layer

    def at(self, name: str) -> nn.Module:
        """Returns the layer that runs in the place of a child: the child, or the layer that
        adapters made of it; an empty `Chain` where an adapter removed it.

        The attribute `chain.name` is always the base layer.

        Raises:
            TreeError: The chain does not have such a place.
        """
        worn = self.__dict__.get("_worn")
        if worn is None or name not in worn.folded:
            return self[name]
        entries = worn.folded[name]
        if len(entries) == 1:
            return entries[0][1]
        part = Chain()
        part.__dict__["_modules"] = dict(entries)
        return part

    def walk(self, kind: type[M] = nn.Module) -> Iterator[tuple[str, M]]:
        """Yields the path and layer of everything of a class below, layers of adapters included, in
        order.

        A layer in two places is yielded twice; a chain in two places is entered once.
        """
        seen: set[int] = set()

        def below(chain: Chain, prefix: str) -> Iterator[tuple[str, M]]:
            seen.add(id(chain))
            for name, child in chain.children_by_name():
                path = f"{prefix}{name}"
                if isinstance(child, kind):
                    yield path, child
                if isinstance(child, Chain) and id(child) not in seen:
                    yield from below(child, f"{path}.")

        return below(self, "")

    def find(self, kind: type[M]) -> M | None:
        """Returns the first layer of a class below, or None."""
        return next((layer for _, layer in self.walk(kind)), None)

    def layers(self, kind: type[M]) -> list[M]:
        """Returns all layers of a class below, in order."""
        return [layer for _, layer in self.walk(kind)]

    @property
    def device(self) -> torch.device:
        """The device of the first weight of the bare tree; the CPU if it has no weights."""
        weight = first_weight(self)
        return torch.device("cpu") if weight is None else weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first floating-point weight of the bare tree; torch's default dtype if
        it has no weights."""
        weight = first_weight(self)
        return torch.get_default_dtype() if weight is None else weight.dtype

    # --- copies and moves ---

    def copy(self) -> Self:
        """Returns a bare copy: new chains around the same leaves and weights."""
        return _copied(self, {})

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state for `deepcopy` and `pickle`: the bare tree."""
        state = self.__dict__.copy()
        state["_modules"] = dict(bare_children(self))
        state.pop("_worn", None)
        state.pop("_tree_index", None)
        state.pop("_compiled_call_impl", None)
        return state

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Implements `to` and `half`; base layers that adapters replace or remove follow."""
        for layer in hidden(self) if recurse else ():
            layer._apply(fn)
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of the tree, including base layers that adapters replace or remove."""
        for layer in hidden(self):
            layer.train(mode)
        return super().train(mode)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Switches gradients of all weights, including base layers that adapters replace or
        remove."""
        for layer in (*self.modules(), *(layer for _, layer in bare_walk(self))):
            for weight in layer.parameters(recurse=False):
                weight.requires_grad_(requires_grad)
        return self

    def __repr__(self) -> str:
        from refiners_core.tree.show import show

        return show(self)


def _copied(chain: T, memo: dict[int, Any]) -> T:
    if not isinstance(chain, Chain):
        return chain
    if id(chain) not in memo:
        twin = memo[id(chain)] = type(chain).__new__(type(chain))
        state = chain.__getstate__()
        twin.__dict__.update({k: v.copy() if isinstance(v, dict) else v for k, v in state.items()})
        twin.__dict__["_modules"] = {
            name: _copied(child, memo) for name, child in state["_modules"].items()
        }
    return memo[id(chain)]
