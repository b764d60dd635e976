"""The strength of a LoRA: the alphas in PEFT's configuration."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from refiners_core.errors import WeightsError


class Strength(NamedTuple):
    """The rank and alpha of a LoRA at one layer."""

    rank: int
    alpha: float


class Alphas:
    """The alphas of one component's layers in PEFT's configuration.

    Args:
        config: Fields of PEFT's configuration of the component.
        names: The component's layers that the file names.

    Raises:
        WeightsError: A field has the wrong type.
    """

    def __init__(self, config: Mapping[str, Any], names: Iterable[str]) -> None:
        patterns: Any = config.get("alpha_pattern") or {}
        default: Any = config.get("lora_alpha", config.get("alpha"))
        values: list[Any] = [*patterns.values()] if isinstance(patterns, Mapping) else [None]
        if not all(map(_is_number, [*values, *([] if default is None else [default])])):
            raise WeightsError(
                f"the LoRA's configuration has lora_alpha = {default!r} and alpha_pattern = "
                f"{patterns!r}, which are not numbers.",
                hint="Fetch the file again.",
            )
        self._default = default
        rank: Any = config.get("r")
        self.rank: int | None = rank if isinstance(rank, int) else None
        self.has_magnitudes = bool(config.get("use_dora"))
        self._is_stabilised = bool(config.get("use_rslora"))
        named = {*names}
        self._whole: dict[str, float] = {}
        self._endings: dict[str, float] = {}
        for pattern, alpha in patterns.items():
            name = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
            # A pattern that is the name of a layer matches that layer alone, though other names may
            # end alike. Any other pattern matches all names that end with it, as in PEFT.
            is_whole = name in named or pattern.startswith("^")
            (self._whole if is_whole else self._endings)[name] = alpha

    def of(self, name: str, rank: int) -> float | None:
        """Returns the alpha of a layer, to be divided by the rank; None if there is none.

        A rank-stabilised LoRA (arXiv:2312.03732) divides alpha by the square root of the rank, so
        its alpha is multiplied by that root.
        """
        alpha = self._whole.get(name, self._whole.get(name.removeprefix("text_model.")))
        if alpha is None:
            endings = (a for end, a in self._endings.items() if f".{name}".endswith(f".{end}"))
            alpha = next(endings, self._default)
        if alpha is None or not self._is_stabilised:
            return alpha
        return alpha * math.sqrt(rank)


def configured(strengths: Mapping[str, Strength], part: str) -> dict[str, Any]:
    """Returns the fields of a PEFT configuration for the layers of a component.

    Args:
        strengths: Rank and alpha by the published name of the layer in the component.
        part: The component: `unet`, `text_encoder` or `text_encoder_2`.
    """
    rank, alpha = (
        Counter(values).most_common(1)[0][0] for values in zip(*strengths.values(), strict=True)
    )
    names = {name: _peft_name(name, part) for name in strengths}
    return {
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": sorted(name.removeprefix("^") for name in names.values()),
        "rank_pattern": {names[n]: s.rank for n, s in strengths.items() if s.rank != rank},
        "alpha_pattern": {names[n]: s.alpha for n, s in strengths.items() if s.alpha != alpha},
    }


def _peft_name(name: str, part: str) -> str:
    """Returns a pattern by which PEFT finds this layer, and no other whose name ends alike."""
    # transformers omits text_model since 5.6, so the names of its layers are matched by their end.
    return f"^{name}" if part == "unet" else name.removeprefix("text_model.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
