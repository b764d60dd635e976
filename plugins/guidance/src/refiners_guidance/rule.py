"""Rules of guidance: they change the predictions that are combined, or their combination."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Layer, Seat
from refiners_core.errors import ConditionError
from refiners_core.models.diffusion import (
    COND,
    UNCOND,
    GenerationRequest,
    LatentDiffusion,
    by_branch,
)


class Rule(Adapter):
    """An adapter that changes classifier-free guidance, so that a generation must have it."""

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses a generation without the pass of the negative prompt.

        Raises:
            ConditionError: The scale of guidance is at most 1.
        """
        if UNCOND not in request.branches:
            raise ConditionError(
                f"{self.key} changes guidance, which this generation does not have: its scale is "
                "at most 1.",
                hint="Pass guidance=7.5, or conditions={adapter: None} to skip the adapter.",
            )


class PassRule(Rule):
    """A rule that changes the predictions of passes before guidance combines them."""

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Changes the predictions that guidance reads."""

        def ruled(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(self.rule(), inner)

        return model.slot("denoise.guidance").wrap(ruled, stage="inputs")

    @abstractmethod
    def rule(self) -> "ChangePasses":
        """Returns the layer that changes the predictions."""


class ChangePasses(Layer):
    """Changes the predictions of passes, as far as the scale of the adapter says.

    Without a scale, or without an `uncond` branch, it returns its input.

    Args:
        scale: The context key of the scale.
    """

    def __init__(self, scale: str) -> None:
        super().__init__()
        self.scale: Final = scale

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        (prediction,) = inputs
        names, scale = context["branches"], context.get(self.scale)
        passes = by_branch(names, prediction)
        if scale is None or UNCOND not in passes:
            return prediction
        changed = self.changed(context, {name: rows.float() for name, rows in passes.items()})
        return torch.cat(
            [
                mixed(rows, changed[name], scale) if name in changed else rows
                for name, rows in passes.items()
            ]
        )

    @abstractmethod
    def changed(self, context: Context, passes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the predictions that change, by branch, at scale 1.

        Args:
            context: The context of the step.
            passes: The predictions of all branches in float32, with a row for each picture.
        """

    def extra_repr(self) -> str:
        return repr(self.scale)


class ChangeGuided(Chain):
    """Changes the prediction that guidance returns, as far as the scale of the adapter says.

    Args:
        scale: The context key of the scale.
        inner: Guidance.
    """

    inner: nn.Module

    def __init__(self, scale: str, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.scale: Final = scale

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        guided: Tensor = self.call(self.inner, context, *inputs)
        scale = context.get(self.scale)
        passes = by_branch(context["branches"], inputs[0])
        if scale is None or COND not in passes:
            return guided
        passes = {name: rows.float() for name, rows in passes.items()}
        return mixed(guided, self.changed(context, passes, guided.float()), scale)

    @abstractmethod
    def changed(self, context: Context, passes: Mapping[str, Tensor], guided: Tensor) -> Tensor:
        """Returns the prediction at scale 1.

        Args:
            context: The context of the step.
            passes: The predictions of all branches in float32, with a row for each picture.
            guided: Their combination.
        """

    def extra_repr(self) -> str:
        return repr(self.scale)


def mixed(plain: Tensor, changed: Tensor, scale: Tensor) -> Tensor:
    """Returns rows between plain ones, at scale 0, and changed ones, at scale 1, or beyond.

    Args:
        plain: The rows, with one for each picture; the result has their dtype.
        changed: The changed rows.
        scale: A 0-d scale, or one for each row of all branches.
    """
    weight = scale_of_rows(scale, len(plain)).float()
    return torch.lerp(plain.float(), changed, weight).to(plain.dtype)


def scale_of_rows(scale: Tensor, count: int) -> Tensor:
    """Returns the scale of so many rows: 0-d, or one for each, as all branches have the same."""
    return scale if scale.ndim == 0 else scale[:count]


def inner_product(a: Tensor, b: Tensor) -> Tensor:
    """Returns the inner product of each row with that of another batch, `(rows, 1, 1, 1)`."""
    return (a * b).sum(tuple(range(1, a.ndim)), keepdim=True)


def norm(a: Tensor) -> Tensor:
    """Returns the length of each row, `(rows, 1, 1, 1)`, which is never 0."""
    return inner_product(a, a).sqrt().clamp(min=1e-12)
