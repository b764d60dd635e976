"""The contract of packages for Refiners: subclass `AdapterContract` or `ModelContract` in a test.

Example:
    >>> from refiners_testkit import AdapterContract
    >>> class TestEdgeGuide(AdapterContract):
    ...     name = "edge-guide"
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from refiners_testkit.adapter import AdapterContract as AdapterContract
    from refiners_testkit.model import ModelContract as ModelContract

_HOMES: Final = {"AdapterContract": "adapter", "ModelContract": "model"}

__all__ = ["AdapterContract", "ModelContract"]


def __getattr__(name: str) -> Any:
    """Imports a contract, which loads torch, when it is first used: pytest imports this package at
    every start."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
