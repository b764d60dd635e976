"""Muon for matrices, AdamW for everything else, and a running mean of a network."""

from collections.abc import Callable
from typing import Any

import torch
from refiners_train.engine.muon import Muon, is_matrix, tables
from torch import Tensor, nn


def split_weights(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Returns the weights for Muon, then all others.

    Muon takes matrices and kernels with more than 8 inputs and outputs. That excludes biases,
    norms, the first and last convolution of every network here, and embedding tables.
    """
    looked_up = tables([model])
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for weight in model.parameters():
        is_map = is_matrix(weight) and id(weight) not in looked_up
        (matrices if is_map else others).append(weight)
    return matrices, others


class Optimisers:
    """Muon and AdamW over one model's weights, on one schedule of the learning rate."""

    def __init__(
        self,
        model: nn.Module,
        *,
        muon: float,
        adam: float,
        betas: tuple[float, float],
        schedule: Callable[[int], float],
    ) -> None:
        matrices, rest = split_weights(model)
        self.weights = matrices + rest
        self.parts: list[tuple[torch.optim.Optimizer, float]] = []
        if matrices:
            self.parts.append((Muon(matrices, lr=muon), muon))
        if rest:  # a LoRA has none
            adamw = torch.optim.AdamW(rest, lr=adam, betas=betas, weight_decay=0.0)
            self.parts.append((adamw, adam))
        self.schedule = schedule

    def step(self, loss: Tensor, step: int, clip: float = 1.0) -> None:
        """Takes one step down a loss, with gradients clipped to a norm of `clip`."""
        for optimiser, rate in self.parts:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = rate * self.schedule(step)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, clip)
        for optimiser, _ in self.parts:
            optimiser.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """Returns the state of both optimisers."""
        return [optimiser.state_dict() for optimiser, _ in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Restores the state of both optimisers."""
        for (optimiser, _), state in zip(self.parts, states, strict=True):
            optimiser.load_state_dict(state)


class Average:
    """A running mean of a model's weights, which generates better than the last weights do."""

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.count = 0
        self.tensors = {name: value.clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the mean towards the model's present weights."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        for name, value in model.state_dict().items():
            mean = self.tensors[name]
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)
