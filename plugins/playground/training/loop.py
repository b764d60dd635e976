"""The loop that every network here is trained by: step, average, measure, keep a checkpoint."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import torch
from optimiser import Average, Optimisers, warm_hold_decay
from run import Run
from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """Rates and lengths of a training run."""

    muon: float
    """The learning rate of matrices and kernels."""
    adam: float
    """The learning rate of everything else."""
    betas: tuple[float, float] = (0.9, 0.99)
    warm: int = 50
    """Steps over which the rates rise."""
    hold: float = 0.4
    """The share of the steps after which the rates begin to fall."""
    floor: float = 0.02
    """The share of the rates that is left at the end."""
    decay: float = 0.998
    """How much of the mean weights each step keeps."""


def train(
    name: str,
    learner: nn.Module,
    recipe: Recipe,
    loss_of: Callable[[int, Random], Tensor],
    measure: Callable[[], dict[str, float]],
    options: argparse.Namespace,
) -> None:
    """Trains a network and leaves its mean weights in it.

    Args:
        name: The run's folder; a run of this name that was cut off goes on.
        learner: Whose weights learn: those that require gradients.
        recipe: How fast.
        loss_of: Makes a batch with this source of chance, and gives its loss.
        measure: Gives figures of the network as it is; asked with the mean weights in place.
        options: `steps`, `measure_every`, `fresh`.
    """
    run = Run(name)
    schedule = warm_hold_decay(options.steps, recipe.warm, recipe.hold, recipe.floor)
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
    """Puts the mean weights in place for a while."""
    learning = {name: value.clone() for name, value in learner.state_dict().items()}
    learner.load_state_dict(average.tensors)
    learner.eval()
    try:
        yield
    finally:
        learner.load_state_dict(learning)
        learner.train()
