"""The form of a loss that a training minimises."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Generator, Tensor


@runtime_checkable
class Objective(Protocol):
    """A loss that is a weighted sum of means, such as of examples and of prior examples.

    Each mean is over all of its terms in a step, whatever processes and parts of a batch they are
    in: the loop divides the sums of `sums` by the total of `counts`.
    """

    @property
    def weights(self) -> Tensor:
        """The weight of each mean, (means,), on the device of the training."""
        ...

    def draw(self, batch: Any, total: int, generator: Generator) -> Mapping[str, Tensor]:
        """Draws the random values of a step, the same in every process.

        Args:
            batch: The rows of this process, of which only sizes are read.
            total: The number of rows of all processes.
            generator: The generator of the step, on the CPU.

        Returns:
            Tensors on the CPU by name, with a row for each of all rows.
        """
        ...

    def counts(self, batch: Any) -> Tensor:
        """Returns the number of terms of each mean in a batch, (means,), float32."""
        ...

    def sums(self, batch: Any, drawn: Mapping[str, Tensor]) -> Tensor:
        """Returns the sum of the terms of each mean, (means,), float32, with gradients.

        Args:
            batch: Rows on the device.
            drawn: The random values of these rows, on the CPU.
        """
        ...
