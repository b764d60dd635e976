"""Muon for matrices, AdamW for everything else, with a warm-up, a plateau and a linear decay."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


@torch.no_grad()
def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Moves the singular values of matrices towards 1 (Muon, Jordan 2024: Newton-Schulz iteration).

    Args:
        matrix: One matrix, or several of one shape, (..., rows, columns).
        steps: The number of iterations.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix / (matrix.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Updates matrices by orthogonalised momentum; kernels are matrices (out, in * k * k).

    Updates are scaled by 0.2 * sqrt(longer side), which gives them AdamW's usual root mean square
    (Liu et al. 2025, arXiv 2502.16982, section 2.2).
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Moves every weight once along its orthogonalised Nesterov momentum."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                scale = 0.2 * max(ahead.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(orthogonalise(ahead).view_as(weight), alpha=-group["lr"] * scale)


def split_weights(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Returns the weights for Muon, then all others.

    Muon takes matrices and kernels with more than 8 inputs and outputs. That excludes biases,
    norms, the first and last convolution of every network here, and embedding tables.
    """
    tables = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for weight in model.parameters():
        is_map = weight.dim() > 1 and min(weight.shape[:2]) > 8 and id(weight) not in tables
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


def warm_hold_decay(
    total: int, warm: int, hold: float, floor: float = 0.02
) -> Callable[[int], float]:
    """Returns a factor of the rates that rises over `warm` steps, is 1 until the share `hold`, then
    falls to `floor`."""

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        done = step / total
        return 1.0 if done < hold else max(floor, 1 - (1 - floor) * (done - hold) / (1 - hold))

    return factor


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
