"""The way from noise to latents of a picture, step by step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from refiners_core.models.diffusion import argument
from refiners_core.models.diffusion.conditioning import AdapterCondition, Told
from refiners_core.models.diffusion.finite import check_finite
from refiners_core.picture import to_images
from refiners_core.tree.context import Context

if TYPE_CHECKING:
    from refiners_core.models.diffusion.generation import Generation


@dataclass(frozen=True)
class Preview:
    """What a step takes the pictures for; nothing is decoded unless it is looked at."""

    step: int
    """The step, from 0."""
    clean: Float[Tensor, "count channels latent_height latent_width"]
    """Latents from which all the noise is gone that the network sees."""
    decode: Callable[[Tensor], Tensor]
    """Turns latents into pixels."""

    @torch.no_grad()
    def pixels(self) -> Float[Tensor, "count 3 height width"]:
        """Returns pixels in 0...1."""
        return self.decode(self.clean)

    def images(self) -> list[Image.Image]:
        """Returns PIL images."""
        return to_images(self.pixels())


def _number(value: float, device: torch.device) -> Tensor:
    """Returns a number as a 0-d tensor, of the same type whatever torch's default is."""
    kind = torch.long if isinstance(value, int) else torch.float32
    return torch.tensor(value, dtype=kind, device=device)


def denoising_loop(
    asked: "Generation",
    latents: Tensor,
    told: Told,
    lasting: Mapping[str, Any],
    guides: Sequence[AdapterCondition],
) -> Float[Tensor, "count channels latent_height latent_width"]:
    """Goes all steps of a generation.

    Args:
        asked: What it was asked for.
        latents: What it begins with.
        told: What the network is told at every step, by context key and branch.
        lasting: What else the context has at every step.
        guides: The adapters that act at some step.

    Raises:
        NotFiniteError: A step lost its numbers.
    """
    request, run = asked.request, asked.sampler
    past: tuple[Tensor, ...] = ()
    with tqdm(total=len(run.timesteps), disable=not asked.has_bar) as bar:
        for step, timestep in enumerate(run.timesteps):
            conditions = dict(told)
            active: dict[str, Any] = dict(lasting)
            for guide in guides:
                if guide.condition.is_active(step, len(run.timesteps)):
                    conditions |= guide.told
                    active[guide.adapter.scale_key] = guide.scale(request)
            if asked.sources:
                active["noise"] = argument.drawn(asked.sources, latents.shape[1:]).to(latents)
            context = Context(
                {
                    "sampler": run,
                    "step": step,
                    "past": past,
                    "timestep": _number(timestep, request.device),
                    "branches": request.branches,
                    "sequential": asked.is_sequential,
                    "guidance": _number(asked.guidance, request.device),
                    "guidance_rescale": asked.rescale,
                    "conditions": conditions,
                    **active,
                }
            )
            latents = asked.model.at("denoise")(latents, context=context)
            check_finite(latents, "unet", request.dtype, step)
            past = context["past"]
            bar.update()
            if asked.preview is not None:
                asked.preview(Preview(step, context["clean"].to(latents.dtype), asked.decoded))
            if asked.callback is not None and asked.callback(step, latents) is False:
                break
    return latents
