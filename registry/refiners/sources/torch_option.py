"""Checks the device and the dtype of a call, before anything is fetched."""

from __future__ import annotations

import re
from typing import Any

from refiners.errors import OptionError


def torch_options(device: Any, dtype: Any) -> dict[str, Any]:
    """Returns an existing device and a floating-point dtype, checked, as keyword arguments.

    Raises:
        OptionError: This machine does not have the device, or torch does not have the dtype.
    """
    import torch

    try:
        torch_device = None if device is None else torch.device(device)
        if torch_device is not None:
            torch.empty(0, device=torch_device)  # fails if the device is missing
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = re.split(r"\.\s", str(error), maxsplit=1)[0].partition("\n")[0].rstrip(".")
        raise OptionError(
            f"{device!r} is not a device of this machine: {reason}.", hint='Try device="cpu".'
        ) from error
    value = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if value is not None and not (isinstance(value, torch.dtype) and value.is_floating_point):
        raise OptionError(f"weights cannot be {dtype!r}.", hint='Try dtype="float32".')
    if isinstance(dtype, str) and value is None:
        raise OptionError(f"{dtype!r} is not a dtype of torch.", hint='Try dtype="float32".')
    return {"device": torch_device, "dtype": value}
