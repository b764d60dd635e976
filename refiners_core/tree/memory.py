"""The values that layers keep from one step of a generation to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from refiners_core.errors import ContextError

_MISSING: Final = object()
_TOGETHER: Final = ""
"""The pass over all branches at once, in keys of values that are not kept by row."""

_DOT: Final = "/"
"""Stands for a dot in the names of attributes, where torch.compile takes it for a path."""


class Memory:
    """Named values that outlive the steps of one generation; the tree itself stays stateless.

    Layers reach it as `context.memory`: every layer of a step, and of the next steps, finds there
    the values of all others. Keys begin with the key of an adapter (`Adapter.context_key`).

    A tensor with a row for each image of each branch, or a tuple of such tensors, is kept by
    branch. A pass over some branches reads and writes their rows alone, and at a step that has a
    branch without rows the value is absent for all of them. Other values are kept as they are, for
    the branches that run together. Replace a value rather than change it in place.

    Example:
        >>> memory = Memory()
        >>> memory["guide.momentum"] = 3
        >>> memory["guide.momentum"], memory.get("guide.cache")
        (3, None)
    """

    # Compiled blocks see `_values` alone: branches are laid out outside them.
    __slots__ = (
        *("_branches", "_complete", "_laid", "_parts", "_pass", "_rows", "_shared", "_split"),
        "_values",
    )

    def __init__(self) -> None:
        self._values = _Values()
        self._laid: dict[str, Any] = {}
        self._shared: dict[tuple[str, str], Any] = {}
        self._split: dict[str, dict[str, tuple[tuple[str, ...], Any]]] = {}
        self._complete: set[str] = set()
        self._parts: dict[tuple[str, str], Memory] = {}
        self._branches: tuple[str, ...] = ()
        self._rows = 0
        self._pass = _TOGETHER

    def __getitem__(self, key: str) -> Any:
        value = self.get(key, _MISSING)
        if value is _MISSING:
            present = ", ".join(self._keys()) or "nothing"
            raise ContextError(
                f"nothing is remembered as {key!r}; the memory has {present}.",
                hint=f'Try context.memory.get("{key}"), which returns None at the first step.',
            )
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self._values, key.replace(".", _DOT), value)

    def __contains__(self, key: str) -> bool:
        return hasattr(self._values, key.replace(".", _DOT))

    def get(self, key: str, default: Any = None) -> Any:
        """Returns the value of `key`, or `default` if the key is absent."""
        return getattr(self._values, key.replace(".", _DOT), default)

    def part(self, name: str) -> Memory:
        """Returns the memory of an extra pass of the network, such as one of several tiles.

        The same name returns the same memory at every step.
        """
        part = self._parts.setdefault((name, self._pass), Memory())
        part.lay(self._branches, self._rows)
        return part

    def lay(self, branches: Sequence[str], rows: int, *, is_alone: bool = False) -> None:
        """Lays the values out for a pass over some branches.

        Args:
            branches: The names of the branches, in the order of their rows.
            rows: The number of rows of all these branches.
            is_alone: Whether the other branches of the step run apart; values that are not kept by
                row are then kept for each pass.
        """
        self._store()
        self._branches, self._rows = tuple(branches), rows
        self._pass = "+".join(branches) if is_alone else _TOGETHER
        if not is_alone:
            names = {*branches}
            self._complete = {key for key, known in self._split.items() if names <= known.keys()}
        keys = dict.fromkeys([*self._split, *(key for key, _ in self._shared)])
        values = {key: self._found(key) for key in keys}
        self._laid = {key: value for key, value in values.items() if value is not _MISSING}
        self._values = _Values()
        vars(self._values).update(self._laid)

    def _store(self) -> None:
        """Stores the values that were written since the last layout."""
        for key, value in vars(self._values).items():
            if self._laid.get(key, _MISSING) is value:
                continue
            if not self._is_by_row(value):
                self._shared[key, self._pass] = value
                continue
            for name in (self._pass, _TOGETHER):
                self._shared.pop((key, name), None)
            entry = self._branches, value
            self._split.setdefault(key, {}).update(dict.fromkeys(self._branches, entry))

    def _found(self, key: str) -> Any:
        shared = self._shared.get((key, self._pass), _MISSING)
        if shared is not _MISSING:
            return shared
        if key not in self._complete or not self._branches:
            return self._shared.get((key, _TOGETHER), _MISSING)
        entries = [self._split[key][name] for name in self._branches]
        if all(branches == self._branches for branches, _ in entries):
            return entries[0][1]  # one write, for the very branches that run now
        return _joined(
            [
                _rows_of(value, branches.index(name), len(branches))
                for name, (branches, value) in zip(self._branches, entries, strict=True)
            ]
        )

    def _is_by_row(self, value: Any) -> bool:
        if isinstance(value, tuple):
            items: tuple[Any, ...] = value
            return bool(items) and all(self._is_by_row(item) for item in items)
        is_rows = isinstance(value, Tensor) and value.ndim > 0 and len(value) == self._rows
        return is_rows and self._rows > 0

    def _keys(self) -> list[str]:
        return sorted(name.replace(_DOT, ".") for name in vars(self._values))

    def __repr__(self) -> str:
        return f"Memory({', '.join(self._keys())})"


class _Values:
    """Values as attributes: a compiled write depends on no other, as a write to a dictionary would
    on the number of its keys."""


def _rows_of(value: Any, index: int, count: int) -> Any:
    """Returns the rows of one of several branches."""
    if isinstance(value, Tensor):
        return value.chunk(count)[index]
    return tuple([_rows_of(item, index, count) for item in value])


def _joined(parts: Sequence[Any]) -> Any:
    """Returns the rows of several branches, one branch after the other."""
    if isinstance(parts[0], Tensor):
        return parts[0] if len(parts) == 1 else torch.cat(list(parts))
    return tuple([_joined(items) for items in zip(*parts, strict=True)])
