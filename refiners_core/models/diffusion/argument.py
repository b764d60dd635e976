"""Checks of the arguments of `generate`, made before any network runs."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol, get_args, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from refiners_core import option
from refiners_core.errors import ConditionError, GenerationError, Notice
from refiners_core.models.clip.prompt import broken_at
from refiners_core.models.samplers import Sampler, named_sampler
from refiners_core.option import described, is_whole
from refiners_core.picture import to_rows

Output = Literal["pil", "tensor", "latents"]
"""The results of a generation: PIL images, pixels in 0...1, or latents."""

DEFAULT_STEPS: Final = 30
DEFAULT_GUIDANCE: Final = 7.5
DEFAULT_STRENGTH: Final = 0.8
_MUCH_NOISE: Final = 0.98
"""The share of noise from which on a network treats latents as pure noise."""


def output(value: Any) -> Output:
    """Returns the kind of result.

    Raises:
        GenerationError: The value is another one. Every check of this module raises it.
    """
    return option.choice("output", value, get_args(Output), error=GenerationError)


def callback(name: str, value: Any) -> Any:
    """Returns a function that is called after each step, or None."""
    if value is not None and not callable(value):
        hint = "step, latents: step < 9" if name == "callback" else "seen: print(seen.step)"
        raise GenerationError(
            f"{name} is a function, not {described(value)}.", hint=f"Try {name}=lambda {hint}."
        )
    return value


def whole(name: str, value: Any, default: int) -> int:
    """Returns a whole number of at least 1."""
    return option.whole(name, value, default, error=GenerationError)


def number(name: str, value: Any, low: float, high: float, default: float) -> float:
    """Returns a finite number within bounds, both included."""
    return option.number(name, value, default, low=low, high=high, error=GenerationError)


def guidance(value: Any) -> float:
    """Returns the scale of guidance; None stands for the default."""
    return number("guidance", DEFAULT_GUIDANCE if value is None else value, 0, math.inf, 7.5)


def texts(name: str, value: Any) -> list[str]:
    """Returns one text or several as a list."""
    several = list(value) if isinstance(value, list | tuple) else []
    items = [value] if isinstance(value, str) else several
    if not items or not all(isinstance(item, str) for item in items):
        raise GenerationError(
            f"{name} is a text or a list of texts, not {described(value)}.",
            hint=f'Try {name}="a red circle".',
        )
    for item in items:
        if (place := broken_at(item)) is not None:
            raise GenerationError(
                f"{name} has half a character, {item[place]!a}, at position {place}.",
                hint='Mend it: text.encode("utf-8", "replace").decode().',
            )
    return items


def negatives(value: Any, prompts: Sequence[str], guidance: float) -> list[str]:
    """Returns one negative prompt for all prompts, or one for each."""
    items = texts("negative_prompt", value)
    if len(items) not in (1, len(prompts)):
        raise GenerationError(
            f"there are {len(items)} negative prompts for {len(prompts)} prompts.",
            hint="Pass one, or one for each.",
        )
    if any(items) and guidance <= 1:
        raise GenerationError(
            f"a negative prompt has no effect at guidance {guidance:g}, only above 1.",
            hint="Leave negative_prompt out, or raise guidance, e.g. guidance=7.5.",
        )
    return items


@runtime_checkable
class SamplerDefaults(Protocol):
    """A model with a sampler of its own, and settings for others."""

    @property
    def sampler(self) -> Sampler:
        """The sampler of a generation that does not name one."""
        ...

    @property
    def scheduler(self) -> Mapping[str, Any]:
        """The published settings that samplers by name follow."""
        ...


def sampler(
    value: Any,
    model: SamplerDefaults,
    *,
    steps: Any = None,
    timesteps: Any = None,
    sigmas: Any = None,
) -> Sampler:
    """Returns a sampler by name, a sampler given as a value, or the model's, with its steps.

    Args:
        value: The name, the value, or None.
        model: The model.
        steps: The number of steps.
        timesteps: The timesteps of the steps, instead of their number.
        sigmas: The sigmas of the steps and of their end, instead of their number.
    """
    if value is None:
        value = model.sampler
    elif isinstance(value, str):
        value = named_sampler(value, model.scheduler)
    if not isinstance(value, Sampler):
        raise GenerationError(
            f"sampler is a name or a Sampler, not {described(value)}.",
            hint='Try sampler="ddim" or sampler=DDIM(...).',
        )
    lists = {"steps": steps, "timesteps": timesteps, "sigmas": sigmas}
    given = [name for name, item in lists.items() if item is not None]
    if len(given) > 1:
        raise GenerationError(
            f"{' and '.join(given)} each set the steps; got {len(given)} of them.",
            hint=f"Leave {given[0]} out.",
        )
    if timesteps is not None:
        return value.with_timesteps(timesteps)
    if sigmas is not None:
        return value.with_sigmas(sigmas)
    return value.with_steps(
        DEFAULT_STEPS if steps is None else whole("steps", steps, DEFAULT_STEPS)
    )


def strength(value: Any, run: Sampler, image: Sequence[Tensor] | None) -> Sampler:
    """Returns the sampler without the steps that an initial image skips."""
    share = number("strength", value, 0, 1, DEFAULT_STRENGTH)
    if image is not None:
        return run.with_strength(share)
    if share != DEFAULT_STRENGTH:
        raise GenerationError(
            "strength is how far an image is changed, but image is missing.",
            hint="Pass image= as well, or leave strength out.",
        )
    return run


def image(
    value: Any, count: int, has_no_size: bool
) -> list[Float[Tensor, "1 3 height width"]] | None:
    """Returns the pixels, in 0...1, of one initial image for all images, or of one for each."""
    if value is None:
        return None
    try:
        pixels = to_rows(value)
    except ConditionError as error:
        raise GenerationError(f"image: {error.message}", hint=error.hint) from error
    if has_no_size and len(sizes := {(row.shape[-1], row.shape[-2]) for row in pixels}) > 1:
        raise GenerationError(
            "the images are of several sizes: "
            f"{', '.join(f'{width} x {height}' for width, height in sorted(sizes))}.",
            hint="Pass the size of the pictures: size=512.",
        )
    if len(pixels) not in (1, count):
        raise GenerationError(
            f"there are {len(pixels)} images for {count} pictures.",
            hint="Pass one, or one for each." if count > 1 else "Pass one of them.",
        )
    return pixels


def default_size(
    latents: Any, image: Sequence[Tensor] | None, sides: tuple[int, int], factor: int
) -> tuple[int, int]:
    """Returns width and height in pixels: those of the initial image or latents, or the model's."""
    if image is not None:
        return image[0].shape[-1], image[0].shape[-2]
    if isinstance(latents, Tensor) and latents.ndim == 4:
        return latents.shape[-1] * factor, latents.shape[-2] * factor
    return sides


def check_beginning(run: Sampler, is_noise: bool) -> None:
    """Warns if a sampler's few steps begin at a noise level well below pure noise.

    Warns:
        Notice: The generation begins with noise alone, and the first step expects less.
    """
    first = run.path[0]
    if is_noise and run.skipped == 0 and not run.explicit and first.noise < _MUCH_NOISE:
        warnings.warn(
            f"{run.steps} steps begin at training step {first.timestep:g}, where latents were "
            f"trained with {first.noise:.1%} noise, but a generation begins with noise alone. More "
            'steps begin nearer to it; spacing="trailing" begins at the last training step: '
            'sampler=DDIM(dataclasses.replace(model.sampler.schedule, spacing="trailing")).',
            Notice,
            stacklevel=5,
        )


def size(value: Any, default: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Returns width and height in pixels."""
    sides = default if value is None else (value, value) if is_whole(value) else value
    is_pair = isinstance(sides, list | tuple) and len(sides) == 2
    if not is_pair or not all(is_whole(side) and side > 0 for side in sides):
        raise GenerationError(
            f"size is one side or (width, height), in pixels, not {described(value)}.",
            hint=f"Try size={default[0]}.",
        )
    if any(side % multiple for side in sides):
        near = tuple(max(1, round(side / multiple)) * multiple for side in sides)
        raise GenerationError(
            f"the sides of a picture are multiples of {multiple}, not {sides[0]} x {sides[1]}.",
            hint=f"Try size={near}.",
        )
    return int(sides[0]), int(sides[1])
