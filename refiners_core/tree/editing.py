"""Editing a chain by hand, while it wears nothing."""

from typing import Self

from torch import nn

from refiners_core.errors import TreeError
from refiners_core.tree.layer import Layer
from refiners_core.tree.naming import checked_module, checked_name, editable, free_name, name_at


class Editable(Layer):
    """What every chain can do to its children; each edit leaves the names of all others."""

    def append(self, layer: nn.Module, name: str | None = None) -> Self:
        """Adds a layer at the end and returns the chain."""
        return self.insert(len(self._modules), layer, name)

    def insert(self, index: int, layer: nn.Module, name: str | None = None) -> Self:
        """Puts a layer before position `index` and returns the chain; no other layer is renamed."""
        items = list(editable(self).items())
        index = slice(index, None).indices(len(items))[0]  # as list.insert reads it
        taken = dict(items)
        if name is None:
            name = free_name(taken, type(layer).__name__, index)
        items.insert(index, (checked_name(self, taken, name, layer), layer))
        self.__dict__["_modules"] = dict(items)
        return self

    def replace(self, where: int | str, layer: nn.Module) -> nn.Module:
        """Puts a layer in another's place, under its name, and returns the other."""
        name = name_at(self, where)
        children = dict(editable(self))
        old = children[name]
        children[name] = checked_module(self, name, layer)
        self.__dict__["_modules"] = children
        return old

    def pop(self, where: int | str = -1) -> nn.Module:
        """Takes a layer out, by position or name, and returns it."""
        name = name_at(self, where)
        children = dict(editable(self))
        old = children.pop(name)
        self.__dict__["_modules"] = children
        return old

    def remove(self, layer: nn.Module) -> None:
        """Takes a child out.

        Raises:
            TreeError: It is no child of this chain.
        """
        self.pop(self.index(layer))

    def index(self, layer: nn.Module) -> int:
        """Returns the position of a child.

        Raises:
            TreeError: It is no child of this chain.
        """
        for i, child in enumerate(self._modules.values()):
            if child is layer:
                return i
        raise TreeError(
            f"this {type(layer).__name__} is no child of {type(self).__name__}.",
            hint="walk() also looks further down.",
        )
