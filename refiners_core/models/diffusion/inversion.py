"""The way of an image from its latents back to noise."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import GenerationError
from refiners_core.models.device import moved
from refiners_core.models.diffusion import argument
from refiners_core.models.diffusion.offload import offload_device
from refiners_core.models.samplers import Inverse
from refiners_core.picture import to_pixels


@torch.no_grad()
def inverted(
    model: Any,
    image: Any,
    prompt: Any,
    *,
    steps: Any,
    sampler: Any,
    size: Any,
    offload: Any,
    **options: Any,
) -> Float[Tensor, "levels channels latent_height latent_width"]:
    """Returns the latents of an image at each level of the way forward, noisiest first.

    Args:
        model: The model, whose `generate` walks backwards.
        image: One image.
        prompt: A text that describes it.
        steps: The number of steps; this and the arguments below as `LatentDiffusion.invert` takes
            them.
        sampler: The sampler of the way forward, or of the way back.
        size: One side, or width and height, in pixels.
        offload: The device of components while they work.
        options: Further arguments of `generate`.

    Raises:
        GenerationError: An argument is refused; no network has run.
    """
    if not isinstance(prompt, str):
        raise GenerationError(
            f"one image is inverted with one prompt, not {argument.described(prompt)}.",
            hint='Try invert(picture, "a red circle").',
        )
    walk = argument.sampler(sampler, model, steps=steps)
    walk = walk if isinstance(walk, Inverse) else Inverse.of(walk)
    pixels = argument.image(image, 1, has_no_size=size is None)
    if pixels is None:
        raise GenerationError("invert needs an image, not None.", hint="Try invert(picture).")
    factor = model.autoencoder.config.reduction
    default = argument.default_size(None, pixels, model.sides, factor)
    width, height = argument.size(size, default, factor)
    model.check_whole()
    with moved(model.autoencoder, offload_device(offload)):
        clean = model.encode(to_pixels(pixels[0], (height, width)))
    path: list[Tensor] = [clean]

    def keep(step: int, latents: Tensor) -> None:
        path.append(latents)

    model.generate(
        prompt,
        steps=walk.steps,
        sampler=walk,
        latents=clean,
        output="latents",
        callback=keep,
        offload=offload,
        **options,
    )
    return torch.cat([latents.to(path[-1]) for latents in reversed(path)])
