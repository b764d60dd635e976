"""Where models are built."""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, Final

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
    with where if where.type != "meta" else _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Makes tensors on the meta device, and leaves out what `torch.nn.init` would do.

    One mode for both: each function that is called passes each mode in Python, and a large model
    calls ten thousand while it is built.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _MAKERS:
            named = dict(kwargs or {})
            if named.get("device") is None:
                named["device"] = "meta"
            return func(*args, **named)
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **kwargs) if kwargs else func(*args)


_MAKERS: Final = frozenset(
    (
        torch.arange,
        torch.empty,
        torch.empty_strided,
        torch.eye,
        torch.full,
        torch.linspace,
        torch.ones,
        torch.rand,
        torch.randint,
        torch.randn,
        torch.randperm,
        torch.tensor,
        torch.zeros,
    )
)
"""What makes tensors of nothing, and so on some device."""
