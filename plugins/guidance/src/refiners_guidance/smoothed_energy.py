"""Smoothed energy guidance (SEG): a pass in which queries of attention are blurred."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from refiners_core import Chain, Context, Edit, Layer, Selection
from refiners_core.option import number
from refiners_guidance.blur import blurred
from refiners_guidance.branch import ExtraPass
from refiners_guidance.grid import grid_of


class SmoothedEnergy(ExtraPass):
    """Leads away from a pass in which the queries of some self-attentions are blurred.

    A blur of queries smooths the energy of attention (arXiv:2408.00760, section 4.2), the more the
    larger `sigma` is, so that `sigma` controls the effect where `strength` stays.

    Args:
        strength: The strength of guidance at scale 1.
        layers: Parts of the network whose self-attentions are blurred, such as `mid` or `up.0`.
        sigma: The width of the blur in positions; infinite for the mean.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: A number is out of range, or `layers` is not a list of texts.
    """

    def __init__(
        self,
        *,
        strength: float = 3.0,
        layers: Sequence[str] = ("mid",),
        sigma: float = 100.0,
        **options: Any,
    ) -> None:
        super().__init__(strength=strength, layers=layers, **options)
        self.sigma: Final = sigma if sigma == math.inf else number("sigma", sigma, 100.0, low=0.1)

    def worse(self, attention: Selection) -> Iterable[Edit]:
        """Blurs the queries of the pass."""
        return attention.wrap(
            lambda inner, seat: Chain(BlurQueries(self.key, self.sigma), inner), stage="inputs"
        )


class BlurQueries(Layer):
    """Blurs the queries in the rows of one branch, and passes other inputs on.

    Args:
        branch: The branch.
        sigma: The width of the blur in positions.
    """

    def __init__(self, branch: str, sigma: float) -> None:
        super().__init__()
        self.branch: Final = branch
        self.sigma: Final = sigma

    def run(self, context: Context, *inputs: Tensor) -> tuple[Tensor, ...]:
        names: Sequence[str] = context["branches"]
        if self.branch not in names:
            return inputs
        index, (queries, *others) = names.index(self.branch), inputs
        parts = list(queries.chunk(len(names)))
        height, width = grid_of(context, queries.shape[1])
        maps = parts[index].transpose(1, 2).unflatten(2, (height, width))
        parts[index] = blurred(maps, self.sigma).flatten(2).transpose(1, 2)
        return torch.cat(parts), *others

    def extra_repr(self) -> str:
        return f"{self.branch!r}, sigma={self.sigma:g}"
