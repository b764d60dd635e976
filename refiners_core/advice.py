"""The advice of an adapter's publisher: words for the prompt, strengths, sampler, steps, guidance.

Advice informs: it is printed and can be read. Where it is *required*, because the adapter is only
right with it, `generate` follows its sampler, steps, timesteps and guidance unless the caller
passes others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from refiners_core.errors import AdapterError
from refiners_core.option import is_number, is_whole
from refiners_core.sampler_name import find_name, nearest_name

FOLLOWED: Final = ("sampler", "steps", "timesteps", "guidance")
"""The arguments of `generate` that required advice sets."""


@dataclass(frozen=True)
class Advice:
    """The settings with which the publisher of an adapter recommends to use it.

    Raises:
        AdapterError: A value is out of range, contradicts another, or names an unknown sampler.

    Example:
        >>> Advice(sampler="lcm", steps=4, guidance=1.0, is_required=True).settings
        {'sampler': 'lcm', 'steps': 4, 'guidance': 1.0}
    """

    trigger_words: tuple[str, ...] = ()
    """The words that the adapter was trained to react to; a prompt should have at least one."""
    strength: tuple[float, float, float] | None = None
    """The least, the usual and the greatest scale of a condition."""
    sampler: str | None = None
    """The name of a sampler as `generate` takes it, such as `lcm` or `euler-trailing`."""
    steps: int | None = None
    """The number of steps, from 1."""
    guidance: float | None = None
    """The scale of classifier-free guidance, from 0; up to 1 the prompt's pass runs alone."""
    timesteps: tuple[float, ...] | None = None
    """The timesteps that the network must read, decreasing, in training steps."""
    clip_skip: int | None = None
    """The number of last layers of the text encoder to skip, from 1, as `ClipSkip` counts."""
    size: int | tuple[int, int] | None = None
    """One side, or width and height, in pixels."""
    examples: tuple[str, ...] = ()
    """The addresses of example pictures."""
    is_required: bool = False
    """Whether the adapter is only right with this sampler, steps, timesteps and guidance."""

    def __post_init__(self) -> None:
        for name, fault in advice_faults(vars(self)):
            end = "" if fault.endswith("?") else "."
            raise AdapterError(
                f"the advice {name}={getattr(self, name)!r} is invalid: {fault}{end}",
                hint='Try Advice(sampler="lcm", steps=4, guidance=1.0, is_required=True).',
            )

    @property
    def settings(self) -> dict[str, Any]:
        """The advised arguments of `generate` among sampler, steps, timesteps and guidance."""
        values = {name: getattr(self, name) for name in FOLLOWED}
        return {name: value for name, value in values.items() if value is not None}


def advice_faults(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the faults of advice: the field, and what is wrong with it.

    Args:
        values: The fields of `Advice`; missing ones have no value.
    """
    known = {name: value for name, value in values.items() if value is not None}
    if (sampler := known.get("sampler")) is not None and find_name(str(sampler)) is None:
        near = nearest_name(str(sampler))
        yield "sampler", f"no sampler has the name {sampler!r}; did you mean {near!r}?"
    for name, least in (("steps", 1), ("clip_skip", 1)):
        if name in known and not (is_whole(known[name]) and known[name] >= least):
            yield name, f"it should be a whole number from {least} on"
    if "guidance" in known and not (is_number(known["guidance"]) and known["guidance"] >= 0):
        yield "guidance", "it should be a number from 0 on"
    size = known.get("size", 1)
    sides = size if isinstance(size, tuple) else (size, size)
    if len(sides) != 2 or not all(is_whole(side) and side > 0 for side in sides):
        yield "size", "it should be one side or width and height, in pixels"
    for name in ("trigger_words", "examples"):
        texts = known.get(name, ())
        if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
            yield name, "it should be a tuple of texts"
    strength = known.get("strength", (0, 0, 0))
    if not _is_numbers(strength, 3) or not strength[0] <= strength[1] <= strength[2]:
        yield "strength", "it should be the least, the usual and the greatest scale, in this order"
    if "timesteps" in known:
        timesteps = known["timesteps"]
        is_valid = _is_numbers(timesteps) and timesteps[-1] >= 0
        if not is_valid or not all(before > after for before, after in pairwise(timesteps)):
            yield "timesteps", "they should be decreasing numbers, the last from 0 on"
        elif known.get("steps") not in (None, len(timesteps)):
            yield "steps", f"there are {len(timesteps)} timesteps"
    if known.get("is_required") and not any(name in known for name in FOLLOWED):
        yield "is_required", f"only {', '.join(FOLLOWED)} can be required, and none is given"


def _is_numbers(value: Any, count: int | None = None) -> bool:
    is_tuple = isinstance(value, tuple) and len(value) == (count or len(value)) > 0
    return is_tuple and all(map(is_number, value))
