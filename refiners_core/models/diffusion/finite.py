"""A guard that says where numbers were lost, instead of a black picture."""

import torch
from torch import Tensor, nn

from refiners_core.errors import GenerationError, ModelError


class NotFiniteError(GenerationError):
    """A component returned infinite numbers, or none; there is no picture.

    Args:
        component: Which one, as the model names it.
        step: The step at which it did so first, counted from 0; None outside the steps.
        dtype: What it computes in.
    """

    code = "not-finite"
    exit_code = 1

    def __init__(self, component: str, step: int | None, dtype: torch.dtype) -> None:
        place = "" if step is None else f" at step {step}"
        hint = (
            f"Compute it in another type: model.{component}.to(dtype=torch.float32), or load the "
            "model with dtype=torch.bfloat16."
            if dtype == torch.float16
            else "Its weights may be broken, or what it is told too strong: try lower guidance= "
            "and scales, and no adapter."
        )
        super().__init__(
            f"{component} returned numbers that are not finite{place}, in {dtype}.", hint=hint
        )
        self.component = component
        self.step = step


def check_arithmetic(model: nn.Module) -> None:
    """Makes sure that torch can compute with a model's weights.

    Raises:
        ModelError: Some are floating-point numbers of less than two bytes.
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
    """Raises unless all numbers are finite.

    Raises:
        NotFiniteError: Some are not.
    """
    if not bool(torch.isfinite(values).all()):
        raise NotFiniteError(component, step, dtype)
