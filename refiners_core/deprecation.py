"""Marks public functions and classes that will go, and warns at the line that uses them.

A name that is deprecated in version 1.1 works in 1.1, where each line that uses it is warned once,
and is gone in 1.2. A test fails when a mark is overdue.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar, cast

T = TypeVar("T", bound=Callable[..., Any])

_warned: Final[set[tuple[str, str, int]]] = set()


class ApiDeprecationWarning(FutureWarning):
    """A public name is deprecated; it is gone in the next minor version of the API."""


def deprecated(*, since: str, instead: str) -> Callable[[T], T]:
    """Marks a function, a method or a class as deprecated.

    Args:
        since: The first version of the API in which it warns, such as `1.1`; it is the last one
            that has it.
        instead: The replacement, as the caller types it.

    Example:
        >>> @deprecated(since="1.1", instead="select(tree).of(Kind)")
        ... def find(tree): ...
    """

    def mark(target: T) -> T:
        name = f"{target.__module__}.{target.__qualname__}"
        if not isinstance(target, type):

            @wraps(target)
            def warning(*args: Any, **kwargs: Any) -> Any:
                warn_deprecated(name, since=since, instead=instead, stacklevel=2)
                return target(*args, **kwargs)

            return cast("T", warning)

        kind = cast("Any", target)
        construct = kind.__init__

        @wraps(construct)
        def constructing(self: Any, *args: Any, **kwargs: Any) -> None:
            warn_deprecated(name, since=since, instead=instead, stacklevel=2)
            if construct is object.__init__:  # the class has `__new__` alone, which took them
                construct(self)
            else:
                construct(self, *args, **kwargs)

        kind.__init__ = constructing
        return cast("T", kind)

    return mark


def warn_deprecated(name: str, *, since: str, instead: str, stacklevel: int = 1) -> None:
    """Warns that the caller's line uses a deprecated name, once for each line.

    Args:
        name: The name, such as `refiners_core.select`, or an argument of it.
        since: The first version of the API that warns.
        instead: The replacement, as the caller types it.
        stacklevel: The number of frames above the caller of this function.
    """
    frame = sys._getframe(stacklevel)
    line = (name, frame.f_code.co_filename, frame.f_lineno)
    if line in _warned:
        return
    _warned.add(line)
    warnings.warn(
        f"{name} is deprecated since API {since} and gone in API {gone_in(since)}; use {instead}.",
        ApiDeprecationWarning,
        stacklevel=stacklevel + 1,
    )


def gone_in(since: str) -> str:
    """Returns the version of the API that no longer has a name deprecated in a version.

    Example:
        >>> gone_in("1.1")
        '1.2'
    """
    major, minor = since.split(".")
    return f"{major}.{int(minor) + 1}"
