"""Executes the shapes and types that signatures state, while tests run.

`make test` names `shapes.checked` as jaxtyping's checker for the tests of numbers.

Jaxtyping wraps every function of a package in a memory of axes and has it checked twice, which
takes most of the time of a test. Functions without shapes need types alone, and one check
suffices, so this module puts a leaner decorator in the place of jaxtyping's.
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
_remembered = jaxtyping.jaxtyped


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks the types of a function at every call; a return of `typing.Self` goes unchecked."""
    try:
        return _beartype(function)
    except BeartypeDecorHintPep673Exception:
        function.__annotations__["return"] = Any
        return _beartype(function)


def jaxtyped(target: Any = None, **_: Any) -> Any:
    """Checks the types of a function or of a dataclass, and its shapes if it states any."""
    if target is None:
        return jaxtyped
    if isclass(target):
        if is_dataclass(target):
            target.__init__ = jaxtyped(target.__init__)
        return target
    stated = target.__annotations__
    hints = {name: _hint(hint, target.__globals__) for name, hint in stated.items()}
    target.__annotations__ = dict(hints)
    checker = checked(target)
    target.__annotations__ = checker.__annotations__ = stated
    return _remembered(checker, typechecker=None) if _has_shape(hints.values()) else checker


def _hint(hint: Any, scope: dict[str, Any]) -> Any:
    """Returns an annotation without forward references; anything if one cannot be followed."""
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


jaxtyping.jaxtyped = jaxtyped
