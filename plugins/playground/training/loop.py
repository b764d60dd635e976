"""The training loop of every network: step, average, measure, save a checkpoint."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import torch
from optimiser import Average, Optimisers
from refiners_train.engine.schedule import Schedule
from run import Run
from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """Learning rates and schedule of a training run."""

    muon: float
    """The learning rate of matrices and kernels."""
    adam: float
    """The learning rate of everything else."""
    betas: tuple[float, float] = (0.9, 0.99)
    warm: int = 50
    """Steps of warm-up."""
    hold: float = 0.4
    """The share of the steps after which the rates fall."""
    floor: float = 0.02
    """The share of the rates at the end."""
    decay: float = 0.998
    """The decay of the averaged weights at each step."""


def train(
    name: str,
    learner: nn.Module,
    recipe: Recipe,
    loss_of: Callable[[int, Random], Tensor],
    measure: Callable[[], dict[str, float]],
    options: argparse.Namespace,
) -> None:
    """Trains a network and leaves its averaged weights in it.

    Args:
        name: The folder of the run; an interrupted run of this name is resumed.
        learner: The network; its weights that require gradients are trained.
        recipe: Learning rates and schedule.
        loss_of: Makes the batch of a step from a source of randomness and returns its loss.
        measure: Returns figures of the network; called with the averaged weights in place.
        options: `steps`, `measure_every`, `fresh`.
    """
    run = Run(name)
    schedule = Schedule(options.steps, recipe.warm, recipe.hold, recipe.floor)
    optimisers = Optimisers(
        learner, muon=recipe.muon, adam=recipe.adam, betas=recipe.betas, schedule=schedule
    )
    average = Average(learner, recipe.decay)
    first = 0
    state = None if options.fresh else run.resume()
    if state:
        learner.load_state_dict(state["model"])
        optimisers.load_state_dict(state["optimisers"])
        average.tensors, first = state["average"], state["step"]
        average.count = first
    torch.manual_seed(first)
    random = Random(first)
    for step in range(first, options.steps):
        loss = loss_of(step, random)
        optimisers.step(loss, step)
        average.update(learner)
        is_last = step + 1 == options.steps
        if step % 50 == 0:
            run.log(step=step, loss=loss.item())
        if (step + 1) % options.measure_every == 0 and not is_last:
            with averaged(learner, average):
                run.log(step=step, **measure())
        if run.is_due() or is_last:
            run.save(
                {
                    "model": learner.state_dict(),
                    "optimisers": optimisers.state_dict(),
                    "average": average.tensors,
                    "step": step + 1,
                }
            )
    learner.load_state_dict(average.tensors)
    learner.eval()
    run.log(step=options.steps, **measure())


@contextmanager
def averaged(learner: nn.Module, average: Average) -> Iterator[None]:
    """Puts the averaged weights in place within a `with` block."""
    learning = {name: value.clone() for name, value in learner.state_dict().items()}
    learner.load_state_dict(average.tensors)
    learner.eval()
    try:
        yield
    finally:
        learner.load_state_dict(learning)
        learner.train()
