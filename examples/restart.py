"""
Restart sampling
================

A sampler that goes back once to more noise and comes down again (arXiv:2306.14878). A sampler is a
value, a schedule and an update rule; a new one is a subclass.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

from torch import Tensor

from refiners_core.models.samplers import DDIM, Level, Stepped


@dataclass(frozen=True)
class Restart(DDIM):
    """Goes back once to more noise and comes down again (arXiv:2306.14878, section 3.1)."""

    at: int = 2
    """After how many steps it goes back, and over how many."""

    @property
    def is_stochastic(self) -> bool:
        return True

    def with_steps(self, steps: int) -> Self:
        return replace(self, steps=steps, skipped=0)

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        way = (*self.schedule.visit(self.steps), self.schedule.end)
        return (*way[: self.at], *way[self.at - 2 :])

    def step(self, latents: Tensor, prediction: Tensor, index: int, **given: Any) -> Stepped:
        if index != self.at - 1:
            return super().step(latents, prediction, index, **given)
        there, above = self.path[self.at + 2], self.path[self.at]
        clean, eps = self.schedule.split(latents.float(), prediction.float(), self.path[index])
        down = there.add_noise(clean, eps)
        signal = above.signal / there.signal
        noise = math.sqrt(above.noise**2 - (signal * there.noise) ** 2)
        up = signal * down + noise * given["noise"].float()
        return Stepped(up.to(latents.dtype), clean)


# %%
# The way it goes
# ---------------

if __name__ == "__main__":
    import refiners

    model = refiners.load_model("playground")
    sampler = Restart(model.sampler.schedule, at=2)
    print("noise at each step:", *(f"{level.noise:.2f}" for level in sampler.with_steps(4).path))
    pictures = [model.generate("a star", sampler=sampler, steps=6, seed=1, progress=False)]
