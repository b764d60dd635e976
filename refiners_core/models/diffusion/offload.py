"""Components that are where they are needed only while they are."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from refiners_core.errors import GenerationError


@contextmanager
def moved(part: nn.Module, device: torch.device | None) -> Generator[None]:
    """Has the weights of a part on a device for the length of a `with` block.

    Afterwards they are the very tensors that they were, so nothing is copied back, and weights that
    lie in a mapped file stay there.

    Args:
        part: A component, with what it wears.
        device: Where it goes; None leaves it where it is.
    """
    if device is None:
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
                there[tensor] = _at(tensor, device)
            tensors[name] = there[tensor]
        yield
    finally:
        for tensors, name, tensor in resting:
            tensors[name] = tensor


def _at(tensor: Tensor, device: torch.device) -> Tensor:
    copy = tensor.detach().to(device, non_blocking=True)
    is_weight = isinstance(tensor, nn.Parameter)
    return nn.Parameter(copy, requires_grad=tensor.requires_grad) if is_weight else copy


def target(value: Any) -> torch.device | None:
    """Returns where components go while they work: to this machine's accelerator, or one named.

    Args:
        value: What `generate(offload=...)` was given.

    Raises:
        GenerationError: There is no such device.
    """
    if value is False or value is None:
        return None
    if value is True:
        if not torch.accelerator.is_available():
            raise GenerationError(
                "offload moves components to an accelerator and back, but there is none here.",
                hint="Leave offload out.",
            )
        return torch.accelerator.current_accelerator()
    try:
        return torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise GenerationError(
            f"{value!r} is no device: {str(error).splitlines()[0]}.", hint="Try offload=True."
        ) from error
