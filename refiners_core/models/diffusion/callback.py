"""The function of a caller that watches a generation, and may end it."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


class Callback:
    """A function of the caller that is called after each step, and whether it ended the generation.

    Args:
        function: Called with the step and the latents; the generation ends where it returns False.
        steps: The number of steps of the generation.
    """

    def __init__(self, function: Callable[[int, Tensor], Any] | None, steps: int) -> None:
        self._function, self._steps = function, steps
        self.ended_after: int | None = None

    def __call__(self, step: int, latents: Tensor) -> bool:
        """Returns whether the generation goes on."""
        if self._function is None or self._function(step, latents) is not False:
            return True
        self.ended_after = step + 1 if step + 1 < self._steps else None
        return False
