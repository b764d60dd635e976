"""Pictures of one batch in the style of its first."""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any, Final

from torch import nn

from refiners_core import Adapter, Edit, Seat
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_stylealigned.attention import SharedAttention


class StyleAligned(Adapter):
    """Gives all pictures of a batch the style of the first one (arXiv:2312.02133).

    Every self-attention of every other picture looks at the first picture as well; the first one
    stays, bit for bit, what it is without the adapter. Nothing is trained.

    Three numbers say how much style is shared. `Condition(scale=...)` is the strength of the
    adapter as a whole: that share of each shared attention, the rest of the plain one; at 0 the
    adapter is skipped. `share` and `shift` belong to the shared attention itself: they change how
    much of the first picture's it looks at.

    Args:
        share: Multiplies the first picture's keys as the others see them (`shared_score_scale` in
            the authors' code): above 1 to follow it more sharply, 0 to see all of it alike.
        shift: Added to the logits of the first picture's keys as the others see them
            (`shared_score_shift`), before the softmax: above 0 to look there more, below 0 less.
        options: What every adapter takes: `weights`, `name`, `key`.

    Raises:
        AdapterError: `share` or `shift` is not a finite number.

    Example:
        >>> StyleAligned(name="style-aligned", shift=1).shift
        1.0
    """

    def __init__(self, *, share: float = 1.0, shift: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.share: Final = _number("share", share, "1.0")
        self.shift: Final = _number("shift", shift, "0.0")

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Shares every self-attention with the first picture of the same branch."""

        def shared(inner: nn.Module, seat: Seat) -> nn.Module:
            return SharedAttention(self.scale_key, self.share, self.shift, inner)

        return model.slot("unet.self_attention.attend").wrap(shared, name="shared", stage="inputs")

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses a batch of one: there is nothing to share.

        Raises:
            ConditionError: One picture is to be made.
        """
        if request.count < 2:
            raise ConditionError(
                f"{self.key} shares the style of the first picture with the others, but only one "
                "is to be made.",
                hint='Pass several prompts, ["a cat", "a dog"], or count=2; conditions={adapter: '
                "None} leaves it out this time.",
            )


def _number(name: str, value: Any, usual: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise AdapterError(
            f"{name} is a finite number, not {value!r}.", hint=f"Try {name}={usual}."
        )
    return float(value)
