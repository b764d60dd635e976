"""Perp-Neg: the part of the negative prompt that does not contradict the prompt."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from torch import Tensor

from refiners_core import Context, Edit, Passthrough, When
from refiners_core.models.diffusion import COND, UNCOND, GenerationRequest, LatentDiffusion
from refiners_core.option import number
from refiners_guidance.branch import AddBranch
from refiners_guidance.rule import ChangePasses, PassRule, inner_product


class PerpNeg(PassRule):
    """Leads away from the part of the negative prompt that is perpendicular to the prompt.

    A third pass reads an empty prompt, from which prompt and negative prompt lead away. Guidance
    follows the prompt, minus what of the negative prompt is perpendicular to it
    (arXiv:2304.04968, section 3.2), so that an overlap of both does not weaken the prompt.

    Args:
        strength: The weight of the negative prompt.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: `strength` is negative, or not a finite number.
    """

    reads_prompts: ClassVar[bool] = True

    def __init__(self, *, strength: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.strength: Final = number("strength", strength, 1.0, low=0)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Adds the pass of the empty prompt, and changes the predictions that guidance reads."""
        add = Passthrough(When(self.scale_key, AddBranch(self.key, ("text", "pooled"))))
        return (
            *model.slot("denoise.branches").before("empty", lambda seat: add),
            *super().edits(model),
        )

    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Reads the empty prompt."""
        read = request.read([""])
        return {self.context_key(name): {COND: tensor} for name, tensor in read.items()}

    def rule(self) -> "LeaveOverlap":
        """Returns the layer that changes the predictions."""
        return LeaveOverlap(self.scale_key, self.key, self.strength)


class LeaveOverlap(ChangePasses):
    """Leaves of the negative prompt what is perpendicular to the prompt (arXiv:2304.04968).

    Args:
        scale: The context key of the scale.
        empty: The branch of the empty prompt.
        strength: The weight of the negative prompt.
    """

    def __init__(self, scale: str, empty: str, strength: float) -> None:
        super().__init__(scale)
        self.empty: Final = empty
        self.strength: Final = strength

    def changed(self, context: Context, passes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        empty = passes[self.empty]
        towards, away = passes[COND] - empty, passes[UNCOND] - empty
        overlap = inner_product(away, towards) / inner_product(towards, towards).clamp(min=1e-12)
        perpendicular = away - overlap * towards
        return {COND: passes[COND] - self.strength * perpendicular, UNCOND: empty}
