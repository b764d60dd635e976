"""Where models are built, and where their parts are while they work."""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
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
            f"{device!r} is not a device: {str(error).splitlines()[0]}.", hint='Try device="cpu".'
        ) from error
    with where if where.type != "meta" else _Unfilled():
        yield


@contextmanager
def moved(
    part: nn.Module, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Generator[None]:
    """Has the weights of a part on a device, or of another type, for the length of a `with` block.

    Afterwards they are the very tensors that they were, so nothing is copied back, and weights that
    lie in a mapped file stay there.

    Args:
        part: A component, with what it wears.
        device: Where it goes; None leaves it where it is.
        dtype: What its floating-point tensors are cast to; None leaves them as they are.
    """
    if device is None and dtype is None:
        yield
        return
    # Other objects, and not other `data`, which torch refuses between some kinds of devices.
    resting: list[tuple[dict[str, Any], str, Tensor]] = [
        (tensors, name, tensor)
        for layer in part.modules()
        for tensors in (layer._parameters, layer._buffers)
        for name, tensor in tensors.items()
        if tensor is not None
    ]
    there: dict[Tensor, Tensor] = {}  # what is in two places stays one
    try:
        for tensors, name, tensor in resting:
            if tensor not in there:
                there[tensor] = _at(tensor, device, dtype)
            tensors[name] = there[tensor]
        yield
    finally:
        for tensors, name, tensor in resting:
            tensors[name] = tensor


def _at(tensor: Tensor, device: torch.device | None, dtype: torch.dtype | None) -> Tensor:
    wanted = dtype if tensor.is_floating_point() else None
    copy = tensor.detach().to(device, wanted, non_blocking=True)
    is_weight = isinstance(tensor, nn.Parameter)
    return nn.Parameter(copy, requires_grad=tensor.requires_grad) if is_weight else copy


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
