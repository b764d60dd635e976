"""The tokens of a feature map as a grid of positions."""

from torch import Tensor

from refiners_core import Context
from refiners_core.errors import ConditionError
from refiners_core.layers import size_of_tokens


def grid_of(context: Context, tokens: int) -> tuple[int, int]:
    """Returns the height and the width of a feature map with so many positions.

    The UNet halves the latents of the step, rounded up, any number of times.

    Args:
        context: The context of the step.
        tokens: The number of positions.

    Raises:
        ConditionError: No level of the UNet has so many positions.
    """
    latents: Tensor = context["latents"]
    size = size_of_tokens(tokens, latents.shape[-2], latents.shape[-1])
    if size is None:
        raise ConditionError(
            f"{tokens} tokens are not a map of latents of {latents.shape[-1]} x "
            f"{latents.shape[-2]}.",
            hint="Eject the adapter that changes the number of tokens.",
        )
    return size
