"""The device to which components are moved while they work."""

from typing import Any

import torch

from refiners_core.errors import GenerationError


def offload_device(value: Any) -> torch.device | None:
    """Returns the device of `generate(offload=...)`; None where components stay in place.

    Args:
        value: True for the accelerator of this machine, a device, or False.

    Raises:
        GenerationError: The device does not exist, or the machine has no accelerator.
    """
    if value is False or value is None:
        return None
    if value is True:
        if not torch.accelerator.is_available():
            raise GenerationError(
                "offload moves components to an accelerator and back, but this machine has none.",
                hint="Leave offload out.",
            )
        return torch.accelerator.current_accelerator()
    try:
        return torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise GenerationError(
            f"{value!r} is not a device: {str(error).splitlines()[0]}.", hint="Try offload=True."
        ) from error
