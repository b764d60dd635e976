"""The rules for names of children of a chain."""

from collections.abc import Mapping
from typing import Final

from torch import nn

from refiners_core.errors import TreeError

_MODULE_ATTRIBUTES: Final = frozenset(nn.Module().__dict__)
_MARKS: Final = frozenset(".+@/")
"""The separators in paths and in the names of layers that adapters add."""


def checked_module(chain: nn.Module, name: str, layer: object) -> nn.Module:
    """Returns `layer` if it can be a child of a chain.

    Raises:
        TreeError: `layer` is not an `nn.Module`.
    """
    if not isinstance(layer, nn.Module):
        raise TreeError(
            f"{name!r} of {type(chain).__name__} is a {type(layer).__name__}, not a module.",
            hint="Put functions into Lambda(function).",
        )
    return layer


def checked_name(chain: nn.Module, taken: Mapping[str, nn.Module], name: str, layer: object) -> str:
    """Returns `name` if a new child may have it.

    Args:
        chain: The chain that gets the child.
        taken: The children that the chain already has, by name.
        name: The name of the new child.
        layer: The new child.

    Raises:
        TreeError: The name is taken or reserved, or `layer` is not an `nn.Module`.
    """
    checked_module(chain, name, layer)
    if name in taken:
        raise TreeError(
            f"{type(chain).__name__} already has a layer named {name!r}.",
            hint="Give one of them another name, e.g. Chain(first=..., second=...).",
        )
    if not name or _MARKS & set(name) or hasattr(type(chain), name) or name in _MODULE_ATTRIBUTES:
        raise TreeError(
            f"{name!r} cannot name a layer of {type(chain).__name__}: it is empty, an "
            "attribute of the class, or contains one of . + @ /.",
            hint=f"Try {''.join('_' if c in _MARKS else c for c in name) or 'some'}_layer.",
        )
    return name


def free_name(taken: Mapping[str, nn.Module], kind: str, index: int) -> str:
    """Returns `kind_index`, or the same with the next free index if that name is taken."""
    while f"{kind}_{index}" in taken:
        index += 1
    return f"{kind}_{index}"
