"""The noise of a generation: seeds, random generators, and what they draw."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import GenerationError
from refiners_core.models.diffusion.request import GenerationRequest
from refiners_core.models.samplers import Sampler
from refiners_core.option import described, is_whole

_MOST_SEED: Final = 2**63


def seeds_of(latents: Any, seed: Any, count: int, run: Sampler) -> tuple[int, ...]:
    """Returns the seed of each image, drawn if none is given; none where no noise is drawn."""
    if latents is not None and not run.is_stochastic:
        if seed is not None:
            raise GenerationError(
                "latents are the noise that a seed would draw; got both.",
                hint="Pass one of them.",
            )
        return ()
    return tuple(checked_seeds(seed, count))


def generators_of(seeds: Sequence[int]) -> tuple[torch.Generator, ...]:
    """Returns a random generator per image, on the CPU."""
    return tuple(torch.Generator("cpu").manual_seed(seed) for seed in seeds)


def initial_noise(
    latents: Any, sources: Sequence[torch.Generator], channels: int, request: GenerationRequest
) -> Float[Tensor, "count channels latent_height latent_width"]:
    """Returns the initial noise: the caller's, or noise drawn for each image alone."""
    shape = (request.count, channels, request.latent_height, request.latent_width)
    if latents is None:
        return draw_noise(sources, shape[1:])
    is_noise = isinstance(latents, Tensor) and latents.is_floating_point()
    if not is_noise or tuple(latents.shape) not in (shape, (1, *shape[1:])):
        raise GenerationError(
            f"latents must be a float tensor of the shape {shape}, not {described(latents)}.",
            hint=f"Try latents=torch.randn{shape}, or another size= or count=.",
        )
    return latents.expand(shape)


def draw_noise(
    sources: Sequence[torch.Generator], shape: Sequence[int]
) -> Float[Tensor, "count channels latent_height latent_width"]:
    """Returns noise with a row from each generator, so that batching changes no image."""
    return torch.stack(
        [
            torch.randn(tuple(shape), generator=source, dtype=torch.float32, device="cpu")
            for source in sources
        ]
    )


def checked_seeds(value: Any, count: int, results: str = "pictures") -> list[int]:
    """Returns the seed of each result: those of a list, or numbers that count up from one.

    Args:
        value: The seed; None draws it from torch's global generator.
        count: The number of results.
        results: The results as messages name them.

    Raises:
        GenerationError: A seed is not a whole number in its range, or there are too few or too
            many.
    """
    if value is None:
        value = int(torch.randint(_MOST_SEED - count, (), device="cpu"))
    items = [int(value) + i for i in range(count)] if is_whole(value) else value
    is_list = isinstance(items, list | tuple)
    if not is_list or not all(is_whole(item) and 0 <= item < _MOST_SEED for item in items):
        raise GenerationError(
            f"a seed is a whole number from 0 to 2**63 - 1, or a list of these, not {value!r}.",
            hint="Try seed=7.",
        )
    if len(items) != count:
        raise GenerationError(
            f"there are {len(items)} seeds for {count} {results}.",
            hint="Pass one for each, or a single one.",
        )
    return [int(item) for item in items]
