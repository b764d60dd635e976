"""The values that travel with one call."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from refiners_core.errors import ContextError
from refiners_core.tree.memory import Memory
from refiners_core.tree.row_scale import times

_MISSING: Final = object()


class Context:
    """Named values that travel with one call of a tree; the tree itself stays stateless.

    A context is not a `Mapping` on purpose: libraries copy mappings that they meet, and a value
    written by one layer would then be lost to the next.

    Args:
        values: The initial values, copied.
        memory: The values that outlive the call; by default nothing is remembered yet.

    Raises:
        ContextError: `values` is not a mapping.

    Example:
        >>> context = Context({"timestep": 3})
        >>> context["timestep"]
        3
    """

    __slots__ = ("__weakref__", "_bound", "_entered", "_memory", "_places", "_values")

    def __init__(
        self, values: Mapping[str, Any] | None = None, memory: Memory | None = None
    ) -> None:
        if not isinstance(values, Mapping | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ContextError(
                f"a context is made from a mapping, not from {type(values).__name__}.",
                hint='Try context={"key": value}.',
            )
        self._values: dict[str, Any] = dict(values) if values is not None else {}
        self._entered = False
        self._memory = memory
        # The scales of adapters by place, a `place.Places`, and the values of the place that runs,
        # which come before the others. Both are None in a call without scales by place.
        self._places: Any = None
        self._bound: dict[str, Any] | None = None

    @property
    def memory(self) -> Memory:
        """The values that layers keep from one step of a generation to the next."""
        if self._memory is None:
            self._memory = Memory()
        return self._memory

    @memory.setter
    def memory(self, memory: Memory) -> None:
        self._memory = memory

    def __getitem__(self, key: str) -> Any:
        if self._bound is not None and key in self._bound:
            return self._bound[key]
        value = self._values.get(key, _MISSING)
        if value is _MISSING:
            present = ", ".join(sorted(self._values)) or "nothing"
            raise ContextError(
                f"no value named {key!r} in the context; it has {present}.",
                hint=f'Pass context={{"{key}": ...}}, or put SetContext("{key}") before the layer.',
            )
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[key] = value

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str, default: Any = None) -> Any:
        """Returns the value of `key`, or `default` if the key is absent."""
        if self._bound is not None and key in self._bound:
            return self._bound[key]
        return self._values.get(key, default)

    def keys(self) -> Iterator[str]:
        """Yields the keys that have a value now; writing meanwhile is safe."""
        return iter(tuple(self._values))

    def scope(
        self,
        rebind: Mapping[str, str] | None = None,
        *,
        memory: Memory | None = None,
        without: Collection[str] = (),
        scales: Mapping[str, float] | None = None,
    ) -> Context:
        """Returns a new context with the same values, whose writes stay inside.

        Nothing is remembered in it, and nothing of it afterwards, unless `memory` is passed: an
        extra pass over the network must not mix its values with those of the first.

        Args:
            rebind: For each key inside, the key of this context that supplies its value.
            memory: The memory inside: `context.memory` for a part of the same pass,
                `context.memory.part(name)` for a pass of its own in every step.
            without: The keys of adapters that do not act inside: their values are absent.
            scales: Factors of the scales of adapters inside, by their keys.

        Raises:
            ContextError: A key that should supply a value is absent.
        """
        inner = Context(self._values, memory)
        inner._entered, inner._places, inner._bound = self._entered, self._places, self._bound
        if starts := tuple(f"{key}." for key in without):
            values = inner._values
            inner._values = {k: v for k, v in values.items() if not k.startswith(starts)}
            inner._places = None if self._places is None else self._places.without(without)
        if scales:
            for key, factor in scales.items():
                if (scale := inner._values.get(f"{key}.scale")) is not None:
                    inner._values[f"{key}.scale"] = times(scale, factor)
            if inner._places is not None:
                inner._places = inner._places.scaled(scales)
        for name, source in (rebind or {}).items():
            inner._values[name] = self[source]
        return inner

    @contextmanager
    def _without(self, *starts: str) -> Generator[None]:
        """Hides the values whose keys begin so, for the length of a `with` block."""
        hidden = {key: self._values.pop(key) for key in self.keys() if key.startswith(starts)}
        try:
            yield
        finally:
            for key, value in hidden.items():
                self._values.setdefault(key, value)

    def __repr__(self) -> str:
        return f"Context({', '.join(sorted(self._values))})"
