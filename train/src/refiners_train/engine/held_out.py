"""The loss of held-out examples, with the same noise and timesteps at every measurement."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch

from refiners_train.data.loading import rows_of
from refiners_train.data.order import batches
from refiners_train.engine.chance import held_out_generator
from refiners_train.engine.loop import Loop


@torch.no_grad()
def held_out_loss(loop: Loop, source: Any) -> float:
    """Returns the loss of all examples of a source, with the averaged weights if there are any.

    Args:
        loop: The loop.
        source: The held-out examples.
    """
    objective, device = loop.objective, loop.accelerator.device
    means = torch.zeros(len(objective.weights), device=device)
    counts = torch.zeros(len(objective.weights))
    with nullcontext() if loop.average is None else loop.average.in_place():
        for number, batch in enumerate(_batches(source, loop.train.batch)):
            generator = held_out_generator(loop.train.seed, number)
            drawn = objective.draw(batch, len(batch), generator)
            with loop.accelerator.autocast():
                means += objective.sums(batch.to(device), drawn)
            counts += objective.counts(batch)
    return float((means / counts.clamp(min=1).to(device) * objective.weights).sum())


def _batches(source: Any, size: int) -> Iterator[Any]:
    for indices in batches(source, size, seed=0, epoch=0):
        yield rows_of(source, indices, 0)
