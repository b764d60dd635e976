"""The interface of adapters for plans, overlays and hooks: enough to name and sort them."""

from typing import Protocol, runtime_checkable


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
    def order(self) -> tuple[str, int, str]:
        """The sort key that places it among the adapters of a tree."""
        ...
