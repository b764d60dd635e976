"""Adaptive projected guidance (APG): guidance across the prediction, with momentum."""

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from torch import Tensor

from refiners_core import Context
from refiners_core.models.diffusion import COND, UNCOND
from refiners_core.option import choice, number
from refiners_guidance.clean import from_clean, to_clean
from refiners_guidance.rule import ChangePasses, PassRule, inner_product, norm

Space = Literal["clean", "prediction"]
"""Where guidance is projected: on the clean latents that predictions imply, or on predictions."""


class Projected(PassRule):
    """Guides across the prediction, where guidance along it only saturates colours.

    The update `cond - uncond` gets the momentum of earlier steps, is cut to a length of at most
    `threshold`, and loses its part along `cond` (arXiv:2410.02416, algorithm 1). A scale of
    guidance of 10 and more keeps its colours.

    Args:
        eta: The share of the part along the prediction that is kept; 0 in the paper, 1 for all.
        momentum: The share of the last update that is added; the paper takes a negative one.
        threshold: The largest length of an update (`r`); 0 for any. It grows with the root of the
            number of latents.
        space: Where updates are projected. The paper has clean latents; diffusers takes the
            prediction as it is.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: A number is out of range, or the space is unknown.
    """

    def __init__(
        self,
        *,
        eta: float = 0.0,
        momentum: float = -0.5,
        threshold: float = 15.0,
        space: Space = "clean",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.eta: Final = number("eta", eta, 0.0)
        self.momentum: Final = number("momentum", momentum, -0.5, low=-1.0, high=1.0)
        self.threshold: Final = number("threshold", threshold, 15.0, low=0)
        self.space: Final[Space] = choice("space", space, get_args(Space))

    def rule(self) -> "ProjectUpdate":
        """Returns the layer that projects the update."""
        return ProjectUpdate(self)


class ProjectUpdate(ChangePasses):
    """Makes the difference of the predictions the projected update (arXiv:2410.02416).

    Guidance then returns `cond + (g - 1) update`, as the paper writes it.

    Args:
        adapter: The adapter with the numbers.
    """

    def __init__(self, adapter: Projected) -> None:
        super().__init__(adapter.scale_key)
        self.memory_key: Final = adapter.context_key("momentum")
        self.eta, self.momentum = adapter.eta, adapter.momentum
        self.threshold, self.space = adapter.threshold, adapter.space

    def changed(self, context: Context, passes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        cond, uncond = passes[COND], passes[UNCOND]
        if self.space == "clean":
            cond, uncond = to_clean(context, cond), to_clean(context, uncond)
        update, before = cond - uncond, context.memory.get(self.memory_key)
        if before is not None:
            update = update + self.momentum * before
        context.memory[self.memory_key] = update
        if self.threshold > 0:
            update = update * (self.threshold / norm(update)).clamp(max=1.0)
        unit = cond / norm(cond)
        along = inner_product(update, unit) * unit
        changed = cond - (update - (1 - self.eta) * along)
        return {UNCOND: from_clean(context, changed) if self.space == "clean" else changed}
