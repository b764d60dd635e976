"""The condition that a generation passes to one adapter: value, strength, steps and mask."""

from dataclasses import dataclass
from typing import Any

from refiners_core.errors import ConditionError
from refiners_core.option import number
from refiners_core.preprocessor import Preprocessor
from refiners_core.scale import Scale, checked_scale, fixed, is_zero


@dataclass(frozen=True)
class Condition:
    """A value for an adapter, with a strength, a range of steps and a region of the image.

    Raises:
        ConditionError: `scale` is not a scale, `start` or `end` is not a finite number or is out of
            range, `value` is itself a condition, or `preprocess` is of another type.

    Example:
        >>> Condition("edges", end=0.5).is_active(step=9, steps=20)
        True
        >>> Condition("edges", end=0.5).is_active(step=10, steps=20)
        False
        >>> Condition("edges", scale=lambda progress: 1 - 2 * progress).is_active(10, steps=20)
        False
    """

    value: Any = None
    """The input of the adapter, such as an image; None for an adapter that takes none."""
    scale: Scale = 1.0
    """The strength; wherever it is 0 the adapter is skipped, and the result is bit for bit that
    without it. A number; a mapping of places to scales, such as `{"unet.up.0": 1.0, "unet.mid":
    0.4}`, where all other places are 0; a schedule, which is a function of the progress or pairs
    `[(0.0, 1.0), (0.5, 0.2)]` with straight lines between them; or a list of a scale for each
    picture. Progress is the share of the steps that are done, 0 at the first. Scales nest."""
    start: float = 0.0
    """The fraction of the steps, in 0...1, after which the adapter starts to act."""
    end: float = 1.0
    """The fraction of the steps, in 0...1, at which the adapter stops."""
    mask: Any = None
    """The region in which the adapter acts: an image or a tensor (1, 1, height, width) in 0...1,
    with 1 inside the region."""
    preprocess: bool | str | Preprocessor = False
    """Whether `value` is a picture from which the adapter's preprocessor makes its input, at the
    size of the generated pictures. Or the preprocessor: its name, or a function that takes the
    value and `size=(width, height)`."""

    def __post_init__(self) -> None:
        checked_scale(self.scale)
        for name in ("start", "end"):
            usual = 0.0 if name == "start" else 1.0
            number(name, getattr(self, name), usual, of="a condition", error=ConditionError)
        if not 0 <= self.start <= self.end <= 1:
            raise ConditionError(
                f"a condition acts between two shares of the steps, 0 <= start <= end <= 1; got "
                f"start={self.start}, end={self.end}.",
                hint="Try Condition(value, start=0.0, end=0.5) for the first half.",
            )
        if isinstance(self.value, Condition):
            raise ConditionError(
                "the value of a condition is itself a condition.",
                hint="Write one Condition(value, ...).",
            )
        is_known = isinstance(self.preprocess, bool | str) and self.preprocess != ""
        if not is_known and not callable(self.preprocess):
            raise ConditionError(
                f"preprocess is True, a name or a function, not {self.preprocess!r}.",
                hint='Try preprocess=True, or a name such as preprocess="canny".',
            )

    def spans(self, step: int, steps: int) -> bool:
        """Whether `step`, counted from 0, of a run of `steps` steps lies within the span."""
        return step / steps >= self.start and (step + 1) / steps <= self.end

    def is_active(self, step: int, steps: int) -> bool:
        """Whether the adapter acts at `step`, counted from 0, of a run of `steps` steps."""
        return self.spans(step, steps) and not is_zero(
            fixed(checked_scale(self.scale), step / steps)
        )
