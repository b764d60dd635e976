"""A guard that names the component whose numbers overflowed, instead of a black image."""

import math

import torch
from torch import Tensor, nn

from refiners_core.errors import GenerationError, ModelError


class NotFiniteError(GenerationError):
    """A component returned infinite numbers or NaN, so no image can be made.

    Args:
        component: The component's name in the model.
        step: The first step at which it did so, counted from 0; None outside the steps.
        dtype: The dtype in which it computes.
    """

    code = "not-finite"
    exit_code = 1

    def __init__(self, component: str, step: int | None, dtype: torch.dtype) -> None:
        place = "" if step is None else f" at step {step}"
        hint = (
            f"Compute it in another type: model.{component}.to(dtype=torch.float32), or load the "
            "model with dtype=torch.bfloat16."
            if dtype == torch.float16
            else "Its weights may be broken, or its inputs too large: try lower guidance= and "
            "scales, and no adapter."
        )
        super().__init__(
            f"{component} returned numbers that are not finite{place}, in {dtype}.", hint=hint
        )
        self.component = component
        self.step = step


def check_arithmetic(model: nn.Module) -> None:
    """Checks that torch can compute with a model's weights.

    Raises:
        ModelError: A component has floating-point weights of less than two bytes.
    """
    for name, component in model.named_children():
        for weight in component.parameters():
            if weight.dtype.is_floating_point and weight.dtype.itemsize < 2:
                raise ModelError(
                    f"{name} has weights of {weight.dtype}, for which torch has no arithmetic.",
                    hint=f"Widen them: model.{name}.to(dtype=torch.bfloat16).",
                )


def check_finite(
    values: Tensor, component: str, dtype: torch.dtype, step: int | None = None
) -> None:
    """Checks that all numbers are finite.

    Raises:
        NotFiniteError: A number is infinite or NaN.
    """
    # A finite sum has finite terms, and is quicker to check; only the reverse does not hold.
    if not math.isfinite(float(values.sum())) and not bool(torch.isfinite(values).all()):
        raise NotFiniteError(component, step, dtype)
