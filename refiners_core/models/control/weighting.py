"""The weights of a side network's outputs, and the two formulas of guess mode."""

from collections.abc import Sequence
from typing import Any, Final, cast

from refiners_core.errors import AdapterError
from refiners_core.option import is_number

GUESSES: Final = ("original", "diffusers")
"""The formulas of guess mode."""


def guess_weights(formula: str, count: int) -> tuple[float, ...]:
    """Returns the weight of each output in guess mode: weak at the top, 1.0 in the middle.

    The formulas are close, but not interchangeable: for 13 outputs the first weight is 0.0994 by
    `original`, 0.825 to the power of the distance from the last output, and 0.1 by `diffusers`,
    equal steps on a logarithmic scale.

    Args:
        formula: `original` or `diffusers`.
        count: The number of outputs: 13 for Stable Diffusion 1.5, 10 for XL.

    Raises:
        AdapterError: The formula is unknown.

    Example:
        >>> [round(weight, 3) for weight in guess_weights("diffusers", 3)]
        [0.1, 0.316, 1.0]
    """
    if formula not in GUESSES:
        raise AdapterError(
            f"guess is {formula!r}; the formulas of guess mode are {' and '.join(GUESSES)}.",
            hint='Try guess="original", or guess=None to turn it off.',
        )
    if formula == "original":
        return tuple(0.825 ** (count - 1 - i) for i in range(count))
    return tuple(10 ** (i / (count - 1) - 1) for i in range(count))


def checked_weights(layers: Any, count: int, adapter: str) -> tuple[float, ...]:
    """Returns a weight per output.

    Args:
        layers: The weights, a list, a tensor or an array of numbers.
        count: The number of outputs.
        adapter: The name of the adapter, for messages.

    Raises:
        AdapterError: The weights are not finite numbers, or their number is not that of the
            outputs.
    """
    layers = layers.tolist() if hasattr(layers, "tolist") else layers  # a tensor or an array
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise AdapterError(
            f"layers of {adapter} is a list of weights, not {layers!r}.",
            hint=f"Try layers=[1.0] * {count}.",
        )
    weights = cast("Sequence[Any]", layers)
    for weight in weights:
        if not is_number(weight):
            raise AdapterError(
                f"layers of {adapter} contains {weight!r}, which is not a finite number.",
                hint=f"Try layers=[1.0] * {count}.",
            )
    if len(weights) != count:
        raise AdapterError(
            f"layers of {adapter} has {len(weights)} weights; this model takes {count}: "
            f"{count - 1} for the skips, then one for the middle.",
            hint=f"Try layers=[1.0] * {count}.",
        )
    return tuple(map(float, weights))
