"""The interface of adapters for plans, overlays and hooks: enough to name and sort them."""

from typing import Any, NamedTuple, Protocol, runtime_checkable


class Lane(NamedTuple):
    """The lane of an adapter among others that are worn abreast of it."""

    group: int
    """The number of the group in this process."""
    position: int
    """The position of the lane in the group; adapters in one lane wrap one another."""
    weight: float
    """The factor of what the lane changes."""


@runtime_checkable
class Wearable(Protocol):
    """An adapter that a tree can wear; every `Adapter` is one."""

    @property
    def name(self) -> str:
        """The name of its family, such as `lora`."""
        ...

    @property
    def key(self) -> str:
        """The mark on its layers and context values, such as `lora-2`."""
        ...

    @property
    def order(self) -> tuple[Any, ...]:
        """The sort key that places it among the adapters of a tree."""
        ...

    @property
    def lane(self) -> Lane | None:
        """Its lane in a group of adapters that read the same; None where it reads the output of
        those before it."""
        ...
