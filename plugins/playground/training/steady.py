"""An optimiser whose state stays on the device, so that a CUDA graph can hold its step.

Muon updates matrices, those of one shape at once; AdamW updates everything else. A running mean of
the weights is part of the step.
"""

from collections.abc import Mapping
from typing import Any

import torch
from optimiser import split_weights
from refiners_train.engine.muon import orthogonalise
from torch import Tensor, nn

MOMENTUM, WEIGHT_DECAY = 0.95, 0.01
"""Of Muon."""
CLIP = 1.0


class SteadyOptimiser:
    """Muon, AdamW and a running mean over the weights of a network.

    Args:
        learner: The network, on its device.
        muon: The learning rate of matrices and kernels.
        adam: The learning rate of everything else.
    """

    def __init__(self, learner: nn.Module, *, muon: float, adam: float) -> None:
        self.learner = learner
        matrices, rest = split_weights(learner)
        self.weights = matrices + rest
        device = self.weights[0].device
        self.muon, self.adam = muon, adam
        self.factor = torch.zeros((), device=device)
        """The factor of both rates, set from outside between steps."""
        self.count = torch.zeros((), device=device)
        self.alike: dict[tuple[int, int], list[nn.Parameter]] = {}
        for weight in matrices:
            rows, columns = weight.shape[0], weight[0].numel()
            self.alike.setdefault((rows, columns), []).append(weight)
        self.momenta = {
            shape: torch.zeros(len(weights), *shape, device=device)
            for shape, weights in self.alike.items()
        }
        self.rate = torch.zeros((), device=device)
        is_cuda = device.type == "cuda"
        self.adamw = torch.optim.AdamW(
            rest,
            lr=self.rate,
            betas=(0.9, 0.99),
            weight_decay=0.0,
            capturable=is_cuda,
            foreach=is_cuda,
        )
        self.means = [weight.detach().clone() for weight in self.weights]

    def step(self, loss: Tensor) -> None:
        """Takes one step down a loss and moves the mean of the weights."""
        for weight in self.weights:
            weight.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, CLIP, foreach=True)
        self.rate.copy_(self.factor * self.adam)
        self.adamw.step()
        with torch.no_grad():
            for shape, weights in self.alike.items():
                self._turn(shape, weights)
            self.count += 1
            kept = ((1 + self.count) / (10 + self.count)).clamp(max=0.999)
            torch._foreach_mul_(self.means, kept)
            torch._foreach_add_(self.means, torch._foreach_mul(self.weights, 1 - kept))

    def _turn(self, shape: tuple[int, int], weights: list[nn.Parameter]) -> None:
        """Moves matrices of one shape along their orthogonalised Nesterov momenta."""
        slopes = torch.stack([weight.grad.view(shape) for weight in weights])  # type: ignore[union-attr]
        momenta = self.momenta[shape]
        momenta.lerp_(slopes, 1 - MOMENTUM)
        steps = orthogonalise(slopes.lerp(momenta, MOMENTUM))
        rate = self.factor * self.muon
        for weight, step in zip(weights, steps, strict=True):
            weight.mul_(1 - rate * WEIGHT_DECAY)
            weight.sub_(rate * 0.2 * max(shape) ** 0.5 * step.view_as(weight))

    def averaged(self) -> Mapping[str, Tensor]:
        """Returns the state of the network with the mean of its weights."""
        names = {id(weight): name for name, weight in self.learner.named_parameters()}
        means = {names[id(w)]: mean for w, mean in zip(self.weights, self.means, strict=True)}
        return self.learner.state_dict() | means

    def state(self) -> dict[str, Any]:
        """Returns all tensors that a resumed run needs."""
        return {
            "weights": self.learner.state_dict(),
            "adamw": self.adamw.state_dict()["state"],
            "momenta": list(self.momenta.values()),
            "means": self.means,
            "count": self.count,
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned, before the step is captured."""
        self.learner.load_state_dict(state["weights"])
        groups = self.adamw.state_dict()["param_groups"]
        self.adamw.load_state_dict({"state": state["adamw"], "param_groups": groups})
        for group in self.adamw.param_groups:
            group["lr"] = self.rate
        for value, saved in zip(self.momenta.values(), state["momenta"], strict=True):
            value.copy_(saved)
        for value, saved in zip(self.means, state["means"], strict=True):
            value.copy_(saved)
        self.count.copy_(state["count"])
