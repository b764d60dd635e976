"""Where models are built."""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from refiners_core.errors import ModelError


@contextmanager
def built_on(device: torch.device | str | None) -> Generator[None]:
    """Puts the parameters of what is built in a `with` block on a device.

    Args:
        device: The default device of torch if None. On `meta` no initial values are worked out:
            nobody sees them, and the first one there would cost a second of torch's imports.

    Raises:
        ModelError: There is no such device.

    Example:
        >>> with built_on("meta"):
        ...     torch.nn.Linear(2, 2).weight.device
        device(type='meta')
    """
    try:
        where = torch.get_default_device() if device is None else torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"{device!r} is no device: {str(error).splitlines()[0]}.", hint='Try device="cpu".'
        ) from error
    if where.type != "meta":
        with where:
            yield
        return
    with where, _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Leaves out what `torch.nn.init` would do."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else named["tensor"]
        return func(*args, **named)
