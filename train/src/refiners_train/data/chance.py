"""Randomness of an example, which depends on its index and epoch alone."""

from random import Random

import torch
from torch import Generator


def chance(*parts: int | str) -> Random:
    """Returns a random generator that depends on these parts only, in every process.

    Args:
        parts: The seed, the epoch, the index of an example and the like.

    Example:
        >>> chance(0, 1, 2).random() == chance(0, 1, 2).random()
        True
    """
    return Random("\0".join(map(str, parts)))


def noise_generator(*parts: int | str) -> Generator:
    """Returns torch's generator on the CPU that depends on these parts only."""
    return torch.Generator("cpu").manual_seed(chance(*parts).getrandbits(63))
