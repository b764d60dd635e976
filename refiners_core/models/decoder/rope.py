"""Rotary embeddings: queries and keys are rotated by the places of their tokens."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.models.config_reader import Published
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer

ANGLES: Final = "decoder.angles"
"""The context key of cosine and sine of the angles of each token, for every rotation; the sine is
negative for the first half of a head."""
_FREQUENCY: Final = "decoder.frequency"
"""The key of `context.memory` for the `Angles` of a decoder and its frequencies (width,), which are
negative for the first half."""


@dataclass(frozen=True)
class Rope:
    """The angles by which features are rotated (arXiv:2104.09864), and their scaling."""

    theta: float = 10000.0
    """The base of the wavelengths."""
    factor: float = 1.0
    """The number by which frequencies are divided, as positions would be."""
    low: float | None = None
    """The number of turns in `trained_places` below which a frequency is divided by all of
    `factor`; None if all frequencies are."""
    high: float = math.inf
    """The number of turns from which a frequency stays, as Llama 3.1 does (arXiv:2407.21783)."""
    trained_places: int = 0
    """The number of tokens for which the model was trained before frequencies were divided."""

    @classmethod
    def from_json(cls, read: Published) -> Self:
        """Reads the keys of a configuration: `rope_theta` and `rope_scaling`, or
        `rope_parameters` with both.

        Raises:
            ModelError: The scaling is of another type, or lacks a number.
        """
        key = "rope_scaling" if read.data.get("rope_scaling") else "rope_parameters"
        value: Any = read.data.get(key) or {}
        if not isinstance(value, Mapping):
            raise read.refusal(key, "a table")
        scaling: Mapping[str, Any] = value
        theta = read.data.get("rope_theta") or scaling.get("rope_theta") or 10000.0
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        wanted = _NUMBERS.get(kind)
        if wanted is None or any(not scaling.get(name) for name in wanted):
            raise read.refusal(
                key, "the type default, linear or llama3, with a number for each of its settings"
            )
        if kind == "default":
            return cls(float(theta))
        if kind == "linear":
            return cls(float(theta), float(scaling["factor"]))
        factor, low, high, places = (scaling[name] for name in wanted)
        return cls(float(theta), float(factor), float(low), float(high), int(places))

    def frequencies(self, width: int, device: torch.device) -> Float[Tensor, "half"]:
        """Returns the radians per place of each pair of features.

        Args:
            width: The features of a head.
            device: The device of the result.
        """
        steps = torch.arange(0, width, 2, dtype=torch.float32, device=device)
        frequency = 1.0 / (self.theta ** (steps / width))
        if self.low is None:
            return frequency / self.factor
        wavelength = 2 * math.pi / frequency
        turns = self.trained_places / wavelength
        share = (turns - self.low) / (self.high - self.low)
        blend = (1 - share) * frequency / self.factor + share * frequency
        slow = torch.where(
            wavelength > self.trained_places / self.low, frequency / self.factor, blend
        )
        return torch.where(wavelength < self.trained_places / self.high, frequency, slow)


class Angles(Layer):
    """Returns cosine and sine of the angles of places, as `ANGLES` has them.

    The frequencies are computed once in a generation, and kept in `context.memory`.

    Args:
        rope: The frequencies.
        width: The features of a head.
    """

    def __init__(self, rope: Rope, width: int) -> None:
        super().__init__()
        self.rope: Final = rope
        self.width: Final = width

    def run(
        self, context: Context, *inputs: Any
    ) -> tuple[Float[Tensor, "#rows tokens 1 width"], Float[Tensor, "#rows tokens 1 width"]]:
        """Takes places (rows, tokens); returns float32, the same angle for the i-th feature of
        either half, but for the sign of the sine."""
        places: Tensor = inputs[0]
        owner, frequency = context.memory.get(_FREQUENCY, (None, None))
        if owner is not self or frequency.device != places.device:
            half = self.rope.frequencies(self.width, places.device)
            frequency = torch.cat([-half, half])
            context.memory[_FREQUENCY] = (self, frequency)
        angle = places[..., None, None].float() * frequency
        return angle.cos(), angle.sin()


class Rotate(Layer):
    """Rotates each pair of features, of either half of a head, by the angle of its token.

    Args:
        heads: The number of heads.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads: Final = heads

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows tokens inner"]:
        cosine, sine = context[ANGLES]
        x: Tensor = inputs[0]
        rows, tokens, inner = x.shape
        width = inner // self.heads
        x = x.reshape(rows, tokens, self.heads, width)
        if x.dtype != cosine.dtype:
            cosine, sine = cosine.to(x.dtype), sine.to(x.dtype)
        halves_swapped = x.roll(width // 2, dims=-1)
        return (x * cosine + halves_swapped * sine).reshape(rows, tokens, inner)

    def extra_repr(self) -> str:
        return str(self.heads)


_NUMBERS: Final[dict[Any, tuple[str, ...]]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}
"""The numbers that each type of scaling needs."""
