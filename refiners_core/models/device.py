"""The device on which models are built, and on which their parts work."""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from refiners_core.errors import ModelError

__all__ = ["built_on", "moved"]


@contextmanager
def built_on(device: torch.device | str | None) -> Generator[None]:
    """Builds the layers of a `with` block on a device.

    Args:
        device: The device; None for torch's default. On `meta` no initial values are computed:
            nothing could read them, and the first would cost a second of torch's imports.

    Raises:
        ModelError: The device does not exist.

    Example:
        >>> with built_on("meta"):
        ...     torch.nn.Linear(2, 2).weight.device
        device(type='meta')
    """
    try:
        target = torch.get_default_device() if device is None else torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"{device!r} is not a device: {str(error).splitlines()[0]}.", hint='Try device="cpu".'
        ) from error
    with target if target.type != "meta" else _Unfilled():
        yield


@contextmanager
def moved(
    part: nn.Module, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Generator[None]:
    """Moves the weights of a part to a device or a dtype for the duration of a `with` block.

    Afterwards the part has its original tensors again, so nothing is copied back, and weights in a
    mapped file stay there.

    Args:
        part: A component, with the adapters that it wears.
        device: The device; None leaves the weights in place.
        dtype: The dtype of floating-point tensors; None leaves them as they are.
    """
    if device is None and dtype is None:
        yield
        return
    # Replaces the tensors, not their `data`, which torch refuses between some kinds of devices.
    originals: list[tuple[dict[str, Any], str, Tensor]] = [
        (tensors, name, tensor)
        for layer in part.modules()
        for tensors in (layer._parameters, layer._buffers)
        for name, tensor in tensors.items()
        if tensor is not None
    ]
    copies: dict[Tensor, Tensor] = {}  # so that shared tensors stay shared
    try:
        for tensors, name, tensor in originals:
            if tensor not in copies:
                copies[tensor] = _copy(tensor, device, dtype)
            tensors[name] = copies[tensor]
        yield
    finally:
        for tensors, name, tensor in originals:
            tensors[name] = tensor


def _copy(tensor: Tensor, device: torch.device | None, dtype: torch.dtype | None) -> Tensor:
    copy_dtype = dtype if tensor.is_floating_point() else None
    copy = tensor.detach().to(device, copy_dtype, non_blocking=True)
    is_weight = isinstance(tensor, nn.Parameter)
    return nn.Parameter(copy, requires_grad=tensor.requires_grad) if is_weight else copy


class _Unfilled(TorchFunctionMode):
    """Creates tensors on the meta device and skips `torch.nn.init`.

    One mode does both, because every call passes every mode in Python, and building a large model
    makes ten thousand calls.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _FACTORIES:
            options = dict(kwargs or {})
            if options.get("device") is None:
                options["device"] = "meta"
            return func(*args, **options)
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **kwargs) if kwargs else func(*args)


_FACTORIES: Final = frozenset(
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
"""The functions that create tensors on a device."""
