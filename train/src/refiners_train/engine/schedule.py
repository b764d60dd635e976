"""The schedule of the learning rate: a warm-up, a plateau and a linear decay."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """The share of the highest learning rate at each step of the optimiser.

    Example:
        >>> schedule = Schedule(steps=100, warm_up=10, hold=0.5, floor=0.0)
        >>> schedule(0), schedule(20), schedule(75)
        (0.1, 1.0, 0.5)
    """

    steps: int
    """The number of steps."""
    warm_up: int = 0
    """The number of steps in which the rate rises."""
    hold: float = 1.0
    """The share of the steps after which the rate falls."""
    floor: float = 0.0
    """The share of the rate at the end."""

    def __call__(self, step: int) -> float:
        """Returns the share at a step, counted from 0."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        done = step / self.steps
        if done < self.hold or self.hold == 1:
            return 1.0
        return max(self.floor, 1 - (1 - self.floor) * (done - self.hold) / (1 - self.hold))
