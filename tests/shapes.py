"""Checks the shapes and types in signatures at run time, while tests run.

`make test` passes `shapes.checked` to jaxtyping as its type checker for the tests of numbers.

jaxtyping's decorator opens a scope of axis names around every call and checks the arguments twice,
which dominated the time of these tests. This module replaces the decorator: functions without
shapes need no scope, and one check suffices.
"""

from collections.abc import Callable
from dataclasses import is_dataclass
from inspect import isclass
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))
_with_axes = jaxtyping.jaxtyped


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks the types of a function at every call, except a return value of `typing.Self`."""
    try:
        return _beartype(function)
    except BeartypeDecorHintPep673Exception:
        function.__annotations__["return"] = Any
        return _beartype(function)


def jaxtyped(target: Any = None, **_: Any) -> Any:
    """Checks the types of a function or dataclass, and its shapes if its signature has any."""
    if target is None:
        return jaxtyped
    if isclass(target):
        if is_dataclass(target):
            target.__init__ = jaxtyped(target.__init__)
        return target
    annotations = target.__annotations__
    hints = {name: _hint(hint, target.__globals__) for name, hint in annotations.items()}
    target.__annotations__ = dict(hints)
    checker = checked(target)
    target.__annotations__ = checker.__annotations__ = annotations
    return _with_axes(checker, typechecker=None) if _has_shape(hints.values()) else checker


def _hint(hint: Any, scope: dict[str, Any]) -> Any:
    """Resolves the forward references of an annotation; `Any` if one cannot be resolved."""
    try:
        return get_type_hints(
            SimpleNamespace(__annotations__={"hint": hint}), scope, include_extras=True
        )["hint"]
    except Exception:
        return Any


def _has_shape(hints: Any) -> bool:
    return any(
        (isclass(hint) and issubclass(hint, jaxtyping.AbstractArray)) or _has_shape(get_args(hint))
        if not isinstance(hint, list)
        else _has_shape(hint)
        for hint in hints
    )


# The import hook of jaxtyping looks its decorator up by this name.
jaxtyping.jaxtyped = jaxtyped
