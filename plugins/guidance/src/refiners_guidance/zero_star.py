"""CFG-Zero*: the unguided prediction at its best length."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from refiners_core import Context
from refiners_core.models.diffusion import COND, UNCOND
from refiners_core.option import whole
from refiners_guidance.rule import ChangePasses, PassRule, inner_product


class ZeroStar(PassRule):
    """Scales the unguided prediction to be as near to the guided one as it can be.

    It is multiplied by `s = <cond, uncond> / |uncond|^2` (arXiv:2503.18886, equation 8), for each
    picture. The paper also predicts zeros in the first steps, which leaves the latents of flow
    matching as they are; for networks that predict noise it does not, so that it is off here.

    Args:
        zero_steps: The number of first steps in which the prediction is 0, for flow matching.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: `zero_steps` is not a whole number from 0 on.
    """

    def __init__(self, *, zero_steps: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.zero_steps: Final = whole("zero_steps", zero_steps, 0, low=0)

    def rule(self) -> "ScaleUnguided":
        """Returns the layer that scales the unguided prediction."""
        return ScaleUnguided(self.scale_key, self.zero_steps)


class ScaleUnguided(ChangePasses):
    """Scales the unguided prediction to its best length (arXiv:2503.18886).

    Args:
        scale: The context key of the scale.
        zero_steps: The number of first steps in which both predictions are 0.
    """

    def __init__(self, scale: str, zero_steps: int) -> None:
        super().__init__(scale)
        self.zero_steps: Final = zero_steps

    def changed(self, context: Context, passes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        cond, uncond = passes[COND], passes[UNCOND]
        if context["step"] < self.zero_steps:
            return {name: torch.zeros_like(cond) for name in (COND, UNCOND)}
        return {
            UNCOND: uncond * inner_product(cond, uncond) / (inner_product(uncond, uncond) + 1e-8)
        }
