"""Sizes of about one area in several shapes, so that pictures lose little to the crop."""

import math
from dataclasses import dataclass

from refiners_train.data.data_error import DataError


@dataclass(frozen=True)
class Buckets:
    """The sizes that pictures are sorted into.

    Sides are multiples of `step`, and no size has more pixels than `area`.

    Example:
        >>> Buckets(area=64 * 64, step=16).size((100, 200))
        (48, 80)
    """

    area: int
    """The most pixels of a size."""
    step: int = 64
    """The number that all sides are multiples of."""
    longest: float = 2.0
    """The longest shape: the longer side divided by the shorter."""

    def __post_init__(self) -> None:
        if not self.sizes:
            raise DataError(
                f"no size of {self.area} pixels has sides that are multiples of {self.step}.",
                hint=f"Try area = {4 * self.step**2}.",
            )

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """All sizes as height and width: for each width the greatest height that fits."""
        sizes: set[tuple[int, int]] = set()
        widest = int(math.sqrt(self.area * self.longest) + 1e-6) // self.step
        for count in range(1, widest + 1):
            width = count * self.step
            height = self.area // width // self.step * self.step
            if height and max(height, width) <= self.longest * min(height, width) + 1e-6:
                sizes |= {(height, width), (width, height)}
        return tuple(sorted(sizes))

    def size(self, original: tuple[int, int]) -> tuple[int, int]:
        """Returns the size whose shape is nearest to that of a picture; of several, the largest.

        Args:
            original: Height and width of the picture.
        """
        shape = math.log(original[0] / original[1])

        def distance(size: tuple[int, int]) -> tuple[float, int]:
            return round(abs(math.log(size[0] / size[1]) - shape), 9), -size[0] * size[1]

        return min(self.sizes, key=distance)
