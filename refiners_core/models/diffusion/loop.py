"""The loop from noise to the latents of an image, step by step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from refiners_core.models.diffusion.conditioning import AdapterCondition, Conditioning
from refiners_core.models.diffusion.finite import check_finite
from refiners_core.models.diffusion.noise import draw_noise
from refiners_core.models.diffusion.strength import Scales
from refiners_core.models.samplers import Sampler
from refiners_core.tree.memory import Memory


def denoising_loop(
    denoise: Callable[..., Tensor],
    latents: Float[Tensor, "count channels latent_height latent_width"],
    sampler: Sampler,
    conditioning: Conditioning,
    adapters: Sequence[AdapterCondition] = (),
    *,
    constants: Mapping[str, Any],
    generators: Sequence[torch.Generator] = (),
    has_bar: bool = False,
    after_step: Callable[[int, Tensor, Tensor], bool] | None = None,
) -> Float[Tensor, "count channels latent_height latent_width"]:
    """Runs every step of a sampler and returns the denoised latents.

    The context of each step is new. `context.memory` is the same at all of them and lasts no longer
    than the loop, so it is gone after an error as well.

    Args:
        denoise: One step as a tree, such as `Denoise`; called with latents and a context.
        latents: The latents before the first step, on the device and in the dtype of the network.
        sampler: The sampler, with its number of steps.
        conditioning: The tensors that the network reads at every step.
        adapters: The adapters that act at some step, encoded.
        constants: The other values of the context at every step: `branches`, `guidance`, ...
        generators: A random generator per image, for a sampler that draws noise at its steps.
        has_bar: Whether a progress bar is shown.
        after_step: Called with the step, counted from 0, the latents after it and the clean latents
            that it predicts; the loop ends where it returns False. A step of a sampler that runs
            the network twice ends after the second run.

    Raises:
        NotFiniteError: A step returned infinite numbers or NaN.
    """
    device, dtype = latents.device, latents.dtype
    scales = Scales([item.strengths for item in adapters if item.strengths], dtype, device)
    numbers = sampler.step_numbers
    steps = numbers[-1] + 1
    past: tuple[Tensor, ...] = ()
    memory = Memory()
    phase, acting = 0, acting_at(adapters, 0)
    with tqdm(total=steps, disable=not has_bar) as bar:
        for position, timestep in enumerate(sampler.timesteps):
            step = numbers[position]
            before, acting = acting, acting_at(adapters, step)
            phase += acting != before
            conditions = dict(conditioning)
            values = dict(constants)
            for item in adapters:
                if item.strengths and item.strengths.is_active(step):
                    conditions |= item.conditioning
            if generators and sampler.draws(position):
                values["noise"] = draw_noise(generators, latents.shape[1:]).to(latents)
            context = scales.at(step).context(
                {
                    "sampler": sampler,
                    "step": position,
                    "steps": len(sampler.timesteps),
                    "phase": phase,
                    "is_first_step": position == 0,
                    "is_last_step": position + 1 == len(sampler.timesteps),
                    "past": past,
                    "timestep": scalar(timestep, device),
                    "conditions": conditions,
                    **values,
                },
                memory,
            )
            latents = denoise(latents, context=context)
            check_finite(latents, "unet", dtype, step)
            past = context["past"]
            if numbers[position + 1 : position + 2] == (step,):
                continue
            bar.update()
            if after_step is not None and not after_step(step, latents, context["clean"]):
                break
    return latents


def acting_at(adapters: Sequence[AdapterCondition], step: int) -> list[Any]:
    """Returns the scales of adapters at a step, which compare equal if they act alike."""
    return [item.strengths.steps[step] for item in adapters if item.strengths]


def scalar(value: float, device: torch.device) -> Tensor:
    """Returns a number as a 0-d tensor, int64 or float32 whatever torch's default dtype is."""
    dtype = torch.long if isinstance(value, int) else torch.float32
    return torch.tensor(value, dtype=dtype, device=device)
