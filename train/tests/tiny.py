"""A tiny training: a LoRA on a model of milliseconds, and its examples."""

from collections.abc import Iterator
from typing import Any

import msgspec
import torch
from refiners_lora.adapter import Lora
from refiners_train import Config, Example
from refiners_train.data.loading import loaded, places
from refiners_train.engine.device import build_accelerator
from refiners_train.engine.diffusion import Diffusion
from refiners_train.engine.learner import Learners, base_weights
from refiners_train.engine.loop import Loop

from refiners_core.testing import tiny_model


class Pictures:
    """Noise, captioned by its number."""

    def __init__(self, count: int, priors: int = 0) -> None:
        self.count, self.priors = count, priors
        self.fingerprint = f"{count} pictures"

    def __len__(self) -> int:
        return self.count

    def example(self, index: int, epoch: int) -> Example:
        generator = torch.Generator().manual_seed(index)
        picture = torch.rand(3, 32, 32, generator=generator)
        return Example(f"{index}", picture, is_prior=index >= self.count - self.priors)


class Same(Pictures):
    """The same example again and again."""

    def example(self, index: int, epoch: int) -> Example:
        return super().example(0, 0)


def config(**train: Any) -> Config:
    table = {
        "output": "unused",
        "base": {"model": "tiny"},
        "adapter": {"name": "unused"},
        "data": {"source": "unused:unused", **train.pop("data", {})},
        "train": {"steps": 4, "batch": 4, "learning-rate": 0.01, **train},
    }
    return msgspec.convert(table, Config)


def tiny_loop(
    settings: Config, dtype: torch.dtype = torch.float32, objective: Any = Diffusion
) -> Loop:
    torch.manual_seed(0)
    model = tiny_model()
    base = base_weights(model)
    adapter = Lora(rank=2).inject(model)
    learners = Learners(base, adapter)
    accelerator = build_accelerator("cpu", settings.train.precision)
    return Loop(accelerator, learners, objective(model, adapter, settings), settings.train)


def batches(loop: Loop, source: Any, process: int = 0, processes: int = 1) -> Iterator[Any]:
    size, seed = loop.train.batch, loop.train.seed
    where = {"process": process, "processes": processes}
    return loaded(source, places(source, size, seed=seed, first=loop.batches, **where), 0)


def weights_of(loop: Loop) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in loop.learners.weights]


def run(loop: Loop, source: Any, steps: int | None = None) -> list[float]:
    """Takes steps and returns the loss of each."""
    losses: list[float] = []
    order = batches(loop, source)
    while loop.step < (steps or loop.train.steps):
        loop.take(*next(order))
        losses.append(loop.loss.item())
    return losses
