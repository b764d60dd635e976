"""The strength of a LoRA: the alphas in PEFT's configuration."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from refiners_core.errors import WeightsError
from refiners_lora.peft_target import matching


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
        is_stated = "lora_alpha" in config or "alpha" in config
        if not all(map(_is_number, [*values, *([default] if is_stated else [])])):
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
        # A pattern that is the name of a layer matches that layer alone, though other names may end
        # alike. Any other pattern is an expression for the end of a name, as in PEFT.
        self._patterns = [
            (
                name if (name := _plain(pattern)) in named else matching(pattern, "alpha_pattern"),
                alpha,
            )
            for pattern, alpha in patterns.items()
        ]

    def of(self, name: str, rank: int) -> float | None:
        """Returns the alpha of a layer, to be divided by the rank; None if there is none.

        Of several patterns that match, the first counts. A rank-stabilised LoRA (arXiv:2312.03732)
        divides alpha by the square root of the rank, so its alpha is multiplied by that root.
        """
        matches = (
            alpha
            for pattern, alpha in self._patterns
            if (pattern == name if isinstance(pattern, str) else pattern.match(name))
        )
        alpha = next(matches, self._default)
        if alpha is None or not self._is_stabilised:
            return alpha
        return alpha * math.sqrt(rank)


def _plain(pattern: str) -> str:
    """Returns the name that an expression for a whole name means."""
    return pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")


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
