"""The devices and the processes of a training, by accelerate."""

from typing import Final

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from refiners_core.errors import ModelError

PRECISIONS: Final = {"float32": "no", "float16": "fp16", "bfloat16": "bf16"}
"""The names of accelerate for dtypes."""


def build_accelerator(device: str | None, precision: str) -> Accelerator:
    """Returns the accelerator of a training.

    Args:
        device: `cpu`, `cuda` or `mps`; None for the best one of this machine, or what
            `accelerate launch` chose.
        precision: The dtype of the computation.

    Raises:
        ModelError: This machine lacks the device, or the device cannot compute in this dtype.
    """
    known = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if device is not None and not known.get(device):
        present = ", ".join(name for name, is_present in known.items() if is_present)
        raise ModelError(
            f"this machine cannot train on {device!r}; it has {present}.", hint="Try --device cpu."
        )
    _forget()
    try:
        return Accelerator(cpu=device == "cpu", mixed_precision=PRECISIONS[precision])
    except ValueError as error:
        raise ModelError(
            f"{device or 'this device'} cannot compute in {precision}: {error}",
            hint='Write precision = "float32" or "bfloat16".',
        ) from error


def _forget() -> None:
    """Forgets the device and the precision of an earlier training in this process.

    accelerate keeps them for the life of a process; those of several processes stay.
    """
    if PartialState._shared_state and PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
