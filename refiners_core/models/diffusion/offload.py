"""Where components go while they work."""

from typing import Any

import torch

from refiners_core.errors import GenerationError


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
