"""What children of a chain may be called."""

from collections.abc import Mapping
from typing import Any, Final

from torch import nn

from refiners_core.errors import TreeError

_MODULE_ATTRIBUTES: Final = frozenset(nn.Module().__dict__)
_MARKS: Final = frozenset(".+@/")
"""What paths, and the names of layers that adapters add, are put together with."""


def checked_module(chain: nn.Module, name: str, layer: object) -> nn.Module:
    """Returns what is to become a child, if it is a module.

    Raises:
        TreeError: It is none.
    """
    if not isinstance(layer, nn.Module):
        raise TreeError(
            f"{name!r} of {type(chain).__name__} is a {type(layer).__name__}, not a module.",
            hint="Put functions into Lambda(function).",
        )
    return layer


def checked_name(chain: nn.Module, taken: Mapping[str, nn.Module], name: str, layer: object) -> str:
    """Returns the name that a child is to have, if it may.

    Raises:
        TreeError: It is taken or reserved, or the child is no module.
    """
    checked_module(chain, name, layer)
    if name in taken:
        raise TreeError(
            f"{type(chain).__name__} already has a layer named {name!r}.",
            hint="Give one of them another name, e.g. Chain(first=..., second=...).",
        )
    if not name or _MARKS & set(name) or hasattr(type(chain), name) or name in _MODULE_ATTRIBUTES:
        raise TreeError(
            f"{name!r} cannot name a layer of {type(chain).__name__}: it is one of its "
            "attributes, empty, or has one of the signs . + @ / in it.",
            hint=f"Try {''.join('_' if c in _MARKS else c for c in name) or 'some'}_layer.",
        )
    return name


def free_name(taken: Mapping[str, nn.Module], kind: str, index: int) -> str:
    """Returns `kind_index`, or with the next index that is free."""
    while f"{kind}_{index}" in taken:
        index += 1
    return f"{kind}_{index}"


def editable(chain: nn.Module) -> Mapping[str, nn.Module]:
    """Returns the children of a chain that may be edited by hand.

    Raises:
        TreeError: It wears adapters.
    """
    worn = chain.__dict__.get("_worn")
    if worn is not None:
        raise TreeError(
            f"{type(chain).__name__} wears {', '.join(worn.keys())}; it cannot be edited by hand.",
            hint="Eject first, or say the edit as an adapter.",
        )
    return chain.__dict__["_modules"]


def name_at(chain: Any, where: int | str) -> str:
    """Returns the name of a child that an edit by hand is about; a path is none."""
    names = list(editable(chain))
    if isinstance(where, str) and where not in names:
        raise TreeError(
            f"{type(chain).__name__} has no child named {where!r}; it has "
            f"{', '.join(names) or 'none'}.",
            hint="Edit the chain that has the layer: chain.layer(path, Chain).",
        )
    chain[where]
    return where if isinstance(where, str) else names[where]
