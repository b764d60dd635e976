"""A running mean of the trained weights, which often draws better than the last weights do."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class Average:
    """The exponential mean of weights; the decay grows to its value in the first steps.

    Args:
        weights: The trained weights.
        decay: The decay of a step, in 0...1.
    """

    def __init__(self, weights: Sequence[Tensor], decay: float) -> None:
        self.decay = decay
        self.count = 0
        self.weights = [*weights]
        self.means = [weight.detach().clone() for weight in weights]

    @torch.no_grad()
    def update(self) -> None:
        """Moves the means towards the present weights."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self.means, self.weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def in_place(self) -> Generator[None]:
        """Puts the means in place of the weights within a `with` block."""
        present = [weight.detach().clone() for weight in self.weights]
        self.copy_in()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.weights, present)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def copy_in(self) -> None:
        """Writes the means into the weights."""
        torch._foreach_copy_(self.weights, self.means)  # pyright: ignore[reportPrivateImportUsage]

    def state_dict(self) -> dict[str, Any]:
        """Returns the means and the number of updates."""
        return {"means": self.means, "count": self.count}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the means and the number of updates."""
        self.count = state["count"]
        for mean, value in zip(self.means, state["means"], strict=True):
            mean.copy_(value)
