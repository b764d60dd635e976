"""The distributions of training timesteps."""

import torch
from jaxtyping import Int
from torch import Generator, Tensor

EVEN_SHARE = 0.25
"""The share of `shapes` that is drawn evenly."""
CENTRE = 0.2
"""The centre of the logits of `shapes`: a little above the middle, where outlines are decided."""


def draw_timesteps(kind: str, count: int, most: int, generator: Generator) -> Int[Tensor, "count"]:
    """Draws training steps.

    Args:
        kind: `uniform`, or `shapes`: three quarters from a logit-normal distribution
            (arXiv:2403.03206, section 3.1), the rest evenly.
        count: The number of steps.
        most: The number of training steps of the schedule.
        generator: The generator, on the CPU.
    """
    even = torch.rand(count, generator=generator, device="cpu")
    if kind == "shapes":
        spread = torch.sigmoid(CENTRE + torch.randn(count, generator=generator, device="cpu"))
        is_even = torch.rand(count, generator=generator, device="cpu") < EVEN_SHARE
        even = torch.where(is_even, even, spread)
    return (even * most).long().clamp(0, most - 1)
