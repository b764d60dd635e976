"""The optimisers of a configuration, as one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from refiners_train.config.schema import Train
from refiners_train.engine.muon import Muon, is_matrix, tables


class Joined(torch.optim.Optimizer):
    """Several optimisers over different weights, which step together.

    Args:
        parts: The optimisers.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)
        super().__init__(
            [weight for part in parts for group in part.param_groups for weight in group["params"]],
            {},
        )
        self.param_groups = [group for part in parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Takes a step of each."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Returns the states of all."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the states of all."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def build_optimiser(
    learners: Sequence[nn.Module], train: Train, *, is_fused: bool
) -> torch.optim.Optimizer:
    """Builds the optimiser of the trained weights.

    Args:
        learners: The modules whose weights are trained.
        train: The configuration.
        is_fused: Whether AdamW updates all weights in one kernel, which a gradient scaler would
            not notice to skip.
    """
    weights = list(dict.fromkeys(p for m in learners for p in m.parameters() if p.requires_grad))
    adam_rate = train.learning_rate
    parts: list[torch.optim.Optimizer] = []
    if train.optimiser == "muon":
        adam_rate = train.other_learning_rate or train.learning_rate
        known = tables(learners)
        matrices = [w for w in weights if is_matrix(w) and id(w) not in known]
        taken = {id(w) for w in matrices}
        weights = [w for w in weights if id(w) not in taken]
        if matrices:
            parts.append(Muon(matrices, train.learning_rate, weight_decay=train.weight_decay))
    if weights:
        options: dict[str, Any] = {"fused": True} if is_fused else {}
        parts.append(
            torch.optim.AdamW(
                weights, adam_rate, train.betas, weight_decay=train.weight_decay, **options
            )
        )
    for part in parts:
        for group in part.param_groups:
            group["highest"] = group["lr"]
    return parts[0] if len(parts) == 1 else Joined(parts)


def set_rate(optimiser: Any, share: float) -> None:
    """Sets the learning rates of all groups to a share of their highest."""
    for group in optimiser.param_groups:
        group["lr"] = group["highest"] * share
