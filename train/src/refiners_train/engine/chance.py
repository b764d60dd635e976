"""The random values of a step, which depend on the seed and its number alone."""

from typing import Final

import torch
from torch import Generator

from refiners_train.data.chance import noise_generator

_STEPS: Final = "step"
_HELD_OUT: Final = "held out"


def step_generator(seed: int, step: int) -> Generator:
    """Returns the generator of a step, on the CPU.

    It also seeds torch's own generators, for layers that draw, such as dropout.
    """
    generator = noise_generator(_STEPS, seed, step)
    torch.manual_seed(generator.initial_seed())
    return generator


def held_out_generator(seed: int, number: int) -> Generator:
    """Returns the generator of a batch of held-out examples, the same at every measurement."""
    return noise_generator(_HELD_OUT, seed, number)
