"""How strong a LoRA is meant to be: alpha, from a key of its own or from PEFT's configuration."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from refiners_core.errors import WeightsError


class Strength(NamedTuple):
    """The strength of a LoRA beside one layer."""

    rank: int
    alpha: float


class Alphas:
    """The alphas that PEFT's configuration of one component gives, by the names of layers.

    Args:
        config: Fields of PEFT's configuration of the component.
        names: The component's layers that the file names.

    Raises:
        WeightsError: A field has another type, or asks for more than a LoRA computes.
    """

    def __init__(self, config: Mapping[str, Any], names: Iterable[str]) -> None:
        if config.get("use_dora"):
            raise WeightsError(
                "the LoRA's configuration has use_dora: it is a DoRA. Only plain LoRAs are read.",
                hint="Give a file whose configuration has use_dora = false.",
            )
        patterns: Any = config.get("alpha_pattern") or {}
        default: Any = config.get("lora_alpha")
        values: list[Any] = [*patterns.values()] if isinstance(patterns, Mapping) else [None]
        if not all(map(_is_number, [*values, *([] if default is None else [default])])):
            raise WeightsError(
                f"the LoRA's configuration has lora_alpha = {default!r} and alpha_pattern = "
                f"{patterns!r}, which are not numbers.",
                hint="Fetch the file again.",
            )
        self._default = default
        self._is_stabilised = bool(config.get("use_rslora"))
        named = {*names}
        self._whole: dict[str, float] = {}
        self._endings: dict[str, float] = {}
        for pattern, alpha in patterns.items():
            name = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
            # The name of a layer means that one alone, though others may end alike. Only what names
            # none is the ending of several, which is how PEFT reads what people write.
            is_whole = name in named or pattern.startswith("^")
            (self._whole if is_whole else self._endings)[name] = alpha

    def of(self, name: str, rank: int) -> float | None:
        """Returns the alpha of a layer, None where the configuration gives none.

        That of a rank-stabilised LoRA (arXiv:2312.03732) is divided by the root of its rank; what
        is returned is to be divided by the rank.
        """
        alpha = self._whole.get(name, self._whole.get(name.removeprefix("text_model.")))
        if alpha is None:
            endings = (a for end, a in self._endings.items() if f".{name}".endswith(f".{end}"))
            alpha = next(endings, self._default)
        if alpha is None or not self._is_stabilised:
            return alpha
        return alpha * math.sqrt(rank)


def configured(strengths: Mapping[str, Strength], part: str) -> dict[str, Any]:
    """Returns fields from which PEFT, and `Alphas`, get the strengths of a component's layers.

    Args:
        strengths: Of each layer, by its published name in the component.
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
        "rank_pattern": {names[n]: it.rank for n, it in strengths.items() if it.rank != rank},
        "alpha_pattern": {names[n]: it.alpha for n, it in strengths.items() if it.alpha != alpha},
    }


def _peft_name(name: str, part: str) -> str:
    """Returns a pattern that PEFT finds a layer by, and no other whose name ends alike."""
    # transformers leaves text_model out since 5.6, so names of its layers are matched by their end.
    return f"^{name}" if part == "unet" else name.removeprefix("text_model.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
