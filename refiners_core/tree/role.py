"""Roles: the classes and facts of the layers that a model was built with, by place.

Libraries that quantise a model put layers of their own into its places. The place of a linear layer
keeps its role, and adapters still find it and read its sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from torch import nn

from refiners_core.tree.bare_tree import bare_children
from refiners_core.tree.chain import Chain

_PLAIN: Final = (int, float, str, tuple)
_NOT_FACTS: Final = ("training",)


class Role(NamedTuple):
    """The class of the layer that a place was built with, and the facts of that layer."""

    kind: type[nn.Module]
    facts: Mapping[str, Any]
    """The plain attributes of the layer, such as `in_features`."""


def record_roles(tree: Chain) -> None:
    """Records the role of every place of a tree, each in the chain that has the place."""
    shared: dict[tuple[Any, ...], Role] = {}
    pending: list[Chain] = [tree]
    while pending:
        chain = pending.pop()
        if "_roles" in chain.__dict__:
            continue
        roles: dict[str, Role] = {}
        chain.__dict__["_roles"] = roles
        for name, child in bare_children(chain).items():
            facts = plain_facts(child)
            key = (type(child), *facts.items())
            roles[name] = shared.setdefault(key, Role(type(child), facts))
            if isinstance(child, Chain):
                pending.append(child)


def plain_facts(layer: nn.Module) -> dict[str, Any]:
    """Returns the public attributes of a layer that are numbers, words or tuples of them."""
    return {
        name: value
        for name, value in layer.__dict__.items()
        if isinstance(value, _PLAIN) and name[0] != "_" and name not in _NOT_FACTS
    }


def role_at(chain: nn.Module, name: str) -> Role | None:
    """Returns the role of a place, or None where it was not recorded."""
    roles: Mapping[str, Role] = chain.__dict__.get("_roles", _NO_ROLES)
    return roles.get(name)


_NO_ROLES: Final[Mapping[str, Role]] = MappingProxyType({})
