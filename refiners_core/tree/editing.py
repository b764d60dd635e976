"""Manual edits of the children of a chain, possible while it wears no adapter."""

from collections.abc import Mapping
from typing import Any, Self

from torch import nn

from refiners_core.errors import TreeError
from refiners_core.tree.layer import Layer
from refiners_core.tree.naming import checked_module, checked_name, free_name


class Editable(Layer):
    """The editing methods of every chain; an edit keeps the names of all other children."""

    def append(self, layer: nn.Module, name: str | None = None) -> Self:
        """Adds a layer at the end and returns the chain.

        Raises:
            TreeError: The name is taken or reserved, or the chain wears adapters.
        """
        return self.insert(len(self._modules), layer, name)

    def insert(self, index: int, layer: nn.Module, name: str | None = None) -> Self:
        """Puts a layer before position `index` and returns the chain; no other layer is renamed.

        Args:
            index: A position as `list.insert` takes it: it may be negative or past the end.
            layer: The new child.
            name: Its name; `ClassName_index` by default.

        Raises:
            TreeError: The name is taken or reserved, or the chain wears adapters.
        """
        children = dict(self._bare_children())
        index = slice(index, None).indices(len(children))[0]  # as list.insert reads it
        if name is None:
            name = free_name(children, type(layer).__name__, index)
        items = [*children.items()]
        items.insert(index, (checked_name(self, children, name, layer), layer))
        self.__dict__["_modules"] = dict(items)
        return self

    def replace(self, where: int | str, layer: nn.Module) -> nn.Module:
        """Puts `layer` in the place of a child, under the same name, and returns the old child.

        Raises:
            TreeError: No such child, or the chain wears adapters.
        """
        name = self._name_at(where)
        children = dict(self._bare_children())
        old = children[name]
        children[name] = checked_module(self, name, layer)
        self.__dict__["_modules"] = children
        return old

    def pop(self, where: int | str = -1) -> nn.Module:
        """Removes a child, by position or name, and returns it.

        Raises:
            TreeError: No such child, or the chain wears adapters.
        """
        name = self._name_at(where)
        children = dict(self._bare_children())
        old = children.pop(name)
        self.__dict__["_modules"] = children
        self.__dict__.get("_roles", {}).pop(name, None)  # a later layer of the name is another one
        return old

    def __setitem__(self, where: int | str, layer: nn.Module) -> None:
        """Puts `layer` in the place of a child, by position or path; see `replace`.

        Raises:
            TreeError: No such child, or the chain that has it wears adapters.
        """
        path, _, name = where.rpartition(".") if isinstance(where, str) else ("", "", where)
        chain: Any = self.layer(path, Editable) if path else self  # pyright: ignore
        chain.replace(name, layer)

    def remove(self, layer: nn.Module) -> None:
        """Removes a child.

        Raises:
            TreeError: `layer` is not a child of this chain, or the chain wears adapters.
        """
        self.pop(self.index(layer))

    def index(self, layer: nn.Module) -> int:
        """Returns the position of a child.

        Raises:
            TreeError: `layer` is not a child of this chain.
        """
        for i, child in enumerate(self._modules.values()):
            if child is layer:
                return i
        raise TreeError(
            f"this {type(layer).__name__} is not a child of {type(self).__name__}.",
            hint="walk() also searches further down.",
        )

    def _bare_children(self) -> Mapping[str, nn.Module]:
        """Returns the children by name.

        Raises:
            TreeError: The chain wears adapters.
        """
        worn = self.__dict__.get("_worn")
        if worn is not None:
            raise TreeError(
                f"{type(self).__name__} wears {', '.join(worn.keys())}; it cannot be edited by "
                "hand.",
                hint="Eject first, or write the edit as an adapter.",
            )
        return self.__dict__["_modules"]

    def _name_at(self, where: int | str) -> str:
        """Returns the name of the child at a position, or `where` itself if it names a child.

        Raises:
            TreeError: No such child, or the chain wears adapters.
        """
        children = self._bare_children()
        if isinstance(where, int):
            self[where]  # pyright: ignore  raises the error of a chain for a wrong position
            return list(children)[where]
        if where not in children:
            raise TreeError(
                f"{type(self).__name__} has no child named {where!r}; it has "
                f"{', '.join(children) or 'none'}.",
                hint="Edit the chain that has the layer: chain.layer(path, Chain).",
            )
        return where
