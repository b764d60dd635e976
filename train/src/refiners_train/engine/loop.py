"""The training loop: one step of the optimiser after another."""

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from accelerate import Accelerator
from torch import Tensor

from refiners_train.config.schema import Train
from refiners_train.data.loading import Place
from refiners_train.engine.average import Average
from refiners_train.engine.chance import step_generator
from refiners_train.engine.learner import Learners
from refiners_train.engine.objective import Objective
from refiners_train.engine.optimiser import build_optimiser, set_rate
from refiners_train.engine.schedule import Schedule

Callback = Callable[[int, "Loop"], Any]
"""Called after each step with the number of steps so far and the loop."""


class Loop:
    """Trains the weights of an adapter.

    Every step is a function of the weights, the state of the optimiser and the number of the step,
    so that a resumed run repeats the numbers of an uninterrupted one.

    Args:
        accelerator: The devices, the precision and the processes.
        learners: The weights.
        objective: The loss.
        train: The configuration.
    """

    def __init__(
        self, accelerator: Accelerator, learners: Learners, objective: Objective, train: Train
    ) -> None:
        self.accelerator: Final = accelerator
        self.learners: Final = learners
        self.objective: Final = objective
        self.train: Final = train
        self.schedule: Final = Schedule(train.steps, train.warm_up, train.hold, train.floor)
        is_fused = accelerator.scaler is None and accelerator.device.type in ("cpu", "cuda")
        optimiser = build_optimiser(learners.modules, train, is_fused=is_fused)
        self.optimiser: Final[Any] = accelerator.prepare_optimizer(optimiser)
        self.average: Final = Average(learners.weights, train.average) if train.average else None
        self.step = 0
        """The number of steps of the optimiser so far."""
        self.skipped = 0
        """The number of batches whose gradients overflowed, which moved nothing."""
        self.loss = torch.zeros((), device=accelerator.device)
        """The loss of the last step, of all processes."""

    @property
    def batches(self) -> int:
        """The number of batches so far."""
        return self.step + self.skipped

    def run(self, loaded: Iterator[tuple[Place, Any]], callback: Callback) -> None:
        """Takes the steps that are left.

        Args:
            loaded: The batches from the next one on.
            callback: Called after each step.
        """
        while self.step < self.train.steps:
            place, batch = next(loaded)
            if self.take(place, batch):
                callback(self.step, self)

    def take(self, place: Place, batch: Any) -> bool:
        """Takes one step; returns False if overflowing gradients were dropped instead.

        Args:
            place: The place of the batch.
            batch: The rows of this process.
        """
        set_rate(self.optimiser, self.schedule(self.step))
        self.loss = self._backward(place, batch)
        self._reduce()
        weights = self.learners.weights
        if self.train.clip:
            self.accelerator.clip_grad_norm_(weights, self.train.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.accelerator.scaler is not None and self.optimiser.step_was_skipped:
            self.skipped += 1
            return False
        if self.average is not None:
            self.average.update()
        self.step += 1
        return True

    def _backward(self, place: Place, batch: Any) -> Tensor:
        """Adds the gradients of the rows of this process; returns the loss of these rows."""
        objective, device = self.objective, self.accelerator.device
        total = torch.zeros((), device=device)
        rows = len(place.indices)
        generator = step_generator(self.train.seed, self.batches)
        counts = objective.counts(batch) if rows else torch.zeros(len(objective.weights))
        counts = self._summed(counts.to(device, non_blocking=True))
        factors = objective.weights / counts.clamp(min=1)
        if not rows:
            return total
        drawn = objective.draw(batch, place.total, generator)
        size = math.ceil(rows / self.train.accumulation)
        for start in range(0, rows, size):
            end = min(start + size, rows)
            own = {name: v[place.start + start : place.start + end] for name, v in drawn.items()}
            part = batch if (start, end) == (0, rows) else batch.rows(start, end)
            with self.accelerator.autocast():
                sums = objective.sums(part.to(device), own)
            loss = (sums * factors).sum()
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _reduce(self) -> None:
        """Adds up the gradients and the losses of all processes."""
        if self.accelerator.num_processes == 1:
            return
        weights = self.learners.weights
        grads = [w.grad if w.grad is not None else torch.zeros_like(w) for w in weights]
        joined = self._summed(torch.cat([*(g.flatten() for g in grads), self.loss.view(1)]))
        self.loss = joined[-1]
        sizes = [weight.numel() for weight in weights]
        for weight, grad in zip(weights, joined[:-1].split(sizes), strict=True):
            weight.grad = grad.view_as(weight).clone()

    def _summed(self, values: Tensor) -> Tensor:
        if self.accelerator.num_processes == 1:
            return values
        summed: Any = self.accelerator.reduce(values, "sum")
        return summed

    # --- state ---

    def state_dict(self) -> dict[str, Any]:
        """Returns the state, on the CPU when it is saved."""
        scaler = self.accelerator.scaler
        return {
            "step": self.step,
            "skipped": self.skipped,
            "weights": dict(zip(self.learners.names, self.learners.weights, strict=True)),
            "optimiser": self.optimiser.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state into the very weights that the optimiser holds."""
        self.step, self.skipped = state["step"], state["skipped"]
        for name, weight in zip(self.learners.names, self.learners.weights, strict=True):
            weight.copy_(state["weights"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
