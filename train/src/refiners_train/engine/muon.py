"""Muon: orthogonalised momentum for matrices."""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any, Final

import torch
from torch import Tensor, nn

NEWTON_SCHULZ: Final = (3.4445, -4.7750, 2.0315)
"""The coefficients of the quintic iteration (Jordan 2024)."""


@torch.no_grad()
def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Moves the singular values of each matrix, (..., rows, columns), towards 1."""
    a, b, c = NEWTON_SCHULZ
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """Updates matrices by orthogonalised Nesterov momentum; kernels are matrices (out, in * k * k).

    Updates are scaled by 0.2 * sqrt(longer side), which gives them the usual root mean square of
    those of AdamW (arXiv:2502.16982, section 2.2). Matrices of one shape are updated together.

    Args:
        params: The weights, of two or more axes.
        lr: The learning rate.
        momentum: The decay of the momentum.
        weight_decay: The share of each weight that a step of rate 1 takes off.
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
        """Moves every weight that has a gradient once."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            weights.sort(key=_shape)  # stable, so that a resumed run has the same stacks
            for _, alike in groupby(weights, key=_shape):
                self._step([*alike], group)

    def _step(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        grads = [weight.grad for weight in weights if weight.grad is not None]
        momenta = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])  # pyright: ignore[reportPrivateImportUsage]
        ahead = torch._foreach_lerp(grads, momenta, group["momentum"])  # pyright: ignore[reportPrivateImportUsage]
        stack = torch.stack([matrix.flatten(1) for matrix in ahead])
        updates = orthogonalise(stack).unbind()
        scale = 0.2 * max(stack.shape[1:]) ** 0.5
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])  # pyright: ignore[reportPrivateImportUsage]
        moves = [
            update.reshape(weight.shape) for update, weight in zip(updates, weights, strict=True)
        ]
        torch._foreach_add_(weights, moves, alpha=-group["lr"] * scale)  # pyright: ignore[reportPrivateImportUsage]


def is_matrix(weight: Tensor) -> bool:
    """Whether Muon takes a weight: a matrix or kernel with more than 8 inputs and outputs.

    That leaves biases, norms and thin convolutions, for which the update of Muon is too coarse.
    """
    return weight.ndim > 1 and min(weight.shape[:2]) > 8


def tables(modules: Iterable[nn.Module]) -> set[int]:
    """Returns the identities of embedding tables, whose rows are looked up one by one."""
    return {id(m.weight) for each in modules for m in each.modules() if isinstance(m, nn.Embedding)}


def _shape(weight: Tensor) -> tuple[int, ...]:
    return tuple(weight.shape)
