"""One generation: all arguments are checked before any network runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from refiners_core.models.device import moved
from refiners_core.models.diffusion import argument
from refiners_core.models.diffusion.advised import follow_advice
from refiners_core.models.diffusion.callback import Callback
from refiners_core.models.diffusion.coding import ImageCoder
from refiners_core.models.diffusion.components import DiffusionComponents
from refiners_core.models.diffusion.conditioning import (
    AdapterCondition,
    Conditioning,
    active_conditions,
    match_conditions,
    scales_of,
)
from refiners_core.models.diffusion.denoise import COND, UNCOND
from refiners_core.models.diffusion.finite import check_finite
from refiners_core.models.diffusion.inpaint import (
    KEPT,
    MASKED_IMAGE,
    Kept,
    greyed,
    inpainting_channels,
    mask_rows,
)
from refiners_core.models.diffusion.loop import denoising_loop, scalar
from refiners_core.models.diffusion.noise import generators_of, initial_noise, seeds_of
from refiners_core.models.diffusion.offload import offload_device
from refiners_core.models.diffusion.preview import Preview
from refiners_core.models.diffusion.prompt_encoding import encoded_prompts, for_each_image
from refiners_core.models.diffusion.recipe import GenerationRecipe, compact_seeds, with_recipes
from refiners_core.models.diffusion.request import GenerationRequest
from refiners_core.models.diffusion.sampler_data import steps_data
from refiners_core.models.samplers import Sampler
from refiners_core.picture import shrunk, to_images, to_pixels
from refiners_core.scale import checked_scale, is_off
from refiners_core.tree.layer import running

Generated = Image.Image | list[Image.Image] | Tensor
"""The result of a generation: an image, several, or a tensor of pixels or latents."""


@dataclass(frozen=True)
class Generation:
    """The checked arguments of one call of `LatentDiffusion.generate`, which documents them."""

    model: DiffusionComponents
    request: GenerationRequest
    prompts: Mapping[str, Sequence[str]]
    """For each branch, a text for all images, or one for each group of `per_prompt` images."""
    conditions: Sequence[AdapterCondition]
    """The adapters that act at some step."""
    sampler: Sampler
    guidance: float
    guidance_rescale: float
    noise: Tensor
    generators: Sequence[torch.Generator]
    """A random generator per image; none where the caller gave the noise."""
    image: Tensor | None
    """Pixels in 0...1 of the initial image, in one row or one for each image."""
    mask: Tensor | None
    """The area of the image that may change: 1 where it may, 0 elsewhere."""
    output: argument.Output
    is_single: bool
    """Whether the caller expects an image rather than a list."""
    has_bar: bool
    callback: Callback
    preview: Callable[[Preview], Any] | None
    is_sequential: bool
    offload: torch.device | None
    """The device of components while they work; None leaves them in place."""
    recipe: GenerationRecipe | None
    """The recipe that the images carry; None to leave it out."""

    @classmethod
    def checked(
        cls,
        model: DiffusionComponents,
        prompt: Any,
        *,
        negative_prompt: Any,
        conditions: Any,
        count: Any,
        steps: Any,
        guidance: Any,
        sampler: Any,
        timesteps: Any,
        sigmas: Any,
        seed: Any,
        latents: Any,
        size: Any,
        image: Any,
        strength: Any,
        mask: Any,
        output: Any,
        progress: Any,
        callback: Any,
        sequential: Any,
        guidance_rescale: Any,
        offload: Any,
        preview: Any,
        recipe: Any,
    ) -> "Generation":
        """Checks the arguments of `generate`; no network runs.

        Raises:
            GenerationError: An argument has a wrong type, is out of range, or contradicts another.
            ConditionError: A worn adapter lacks a condition, or refuses the one it is given.
        """
        prompts = argument.texts("prompt", prompt)
        per_prompt = argument.whole("count", count, 1)
        total = len(prompts) * per_prompt
        matched = match_conditions(model.adapters, conditions)
        used = follow_advice(
            [item.adapter for item in matched if not is_off(checked_scale(item.condition.scale))],
            {
                **{"sampler": sampler, "guidance": guidance},
                **{"steps": steps, "timesteps": timesteps, "sigmas": sigmas},
            },
        )
        guidance = argument.guidance(used["guidance"])
        negatives = argument.negatives(negative_prompt, prompts, guidance)
        pixels = argument.image(image, total, size is None)
        whole = argument.sampler(
            used["sampler"],
            model,
            steps=used["steps"],
            timesteps=used["timesteps"],
            sigmas=sigmas,
        )
        run = argument.strength(strength, whole, pixels)
        argument.check_beginning(run, pixels is None)
        masks = mask_rows(mask, pixels, total, model.is_inpainting)
        factor = model.autoencoder.config.reduction
        default = argument.default_size(latents, pixels, model.sides, factor)
        width, height = argument.size(size, default, factor)
        device = offload_device(offload)
        branches = (UNCOND, COND) if guidance > 1 else (COND,)
        texts = {UNCOND: negatives, COND: prompts}
        request = GenerationRequest(
            model=model,
            count=total,
            branches=branches,
            height=height,
            width=width,
            latent_height=height // factor,
            latent_width=width // factor,
            dtype=model.unet.dtype,
            device=device or model.unet.device,
            prompts={name: for_each_image(texts[name], total) for name in branches},
            offload=device,
            sampler=run,
        )
        active = active_conditions(matched, request, run.step_numbers[-1] + 1)
        scales = scales_of(active, request)
        request = replace(request, scales=scales.outside().values, places=scales)
        given, active = active, tuple([item.prepared(request) for item in active])
        seeds = seeds_of(latents, seed, total, run)
        generators = generators_of(seeds)
        guidance_rescale = argument.number("guidance_rescale", guidance_rescale, 0, 1, 0.7)
        output = argument.output(output)
        arguments = {
            **{"prompt": prompt, "negative_prompt": negative_prompt, "count": per_prompt},
            **{"guidance": guidance, "guidance_rescale": guidance_rescale},
            **steps_data(whole, timesteps=used["timesteps"], sigmas=sigmas),
            **{"size": [width, height], "sequential": bool(sequential)},
            **({"seed": compact_seeds(seeds)} if seeds else {}),
            **({} if pixels is None else {"strength": float(strength)}),
        }
        values = {"image": image, "mask": mask, "latents": latents}
        return cls(
            model=model,
            request=request,
            prompts=texts,
            conditions=active,
            sampler=run,
            guidance=guidance,
            guidance_rescale=guidance_rescale,
            noise=initial_noise(
                latents, generators, model.autoencoder.config.latent_channels, request
            ),
            generators=generators,
            image=None if pixels is None else to_pixels(pixels, (height, width)),
            mask=None
            if masks is None
            else torch.cat([shrunk(row, (height, width)) for row in masks]),
            output=output,
            is_single=(
                isinstance(prompt, str) and per_prompt == 1 and not isinstance(seed, list | tuple)
            ),
            has_bar=bool(progress),
            callback=Callback(argument.callback("callback", callback), run.step_numbers[-1] + 1),
            preview=argument.callback("preview", preview),
            is_sequential=bool(sequential),
            offload=device,
            recipe=GenerationRecipe(model, given, arguments, values, whole, request.device)
            if recipe and output == "pil"
            else None,
        )

    @torch.no_grad()
    def run(self) -> Generated:
        """Generates the images; meanwhile no adapter can be injected or ejected.

        Autocast around the call is turned off: each component computes in the dtype of its weights.
        """
        kind = self.request.device.type
        facts = None if self.recipe is None else self.recipe.facts()
        with (
            running(self.model),
            torch.autocast("cpu", enabled=False),
            torch.autocast(kind, enabled=False),
        ):
            conditions = list(self.conditions)
            for i, condition in enumerate(conditions):
                condition.follow(self.request)
                with moved(condition.adapter, self.offload):
                    conditions[i] = condition.encoded(self.request)
            with moved(self.model.text_encoder, self.offload):
                texts = encoded_prompts(self.request, self.prompts, conditions)
            coder = ImageCoder(self.model, self.request, conditions, self.offload)
            latents = self._denoised(texts, conditions, coder)
            if self.output == "latents":
                return latents
            pixels = coder.decode(latents)
            check_finite(pixels, "autoencoder", self.model.autoencoder.dtype)
        if self.output == "tensor":
            return pixels
        images = with_recipes(to_images(pixels), facts, self.callback)
        return images[0] if self.is_single else images

    def _initial(self, noise: Tensor, clean: Tensor | None) -> Tensor:
        """Returns the latents before the first step: noise, or a noised image."""
        # An area that is inpainted from the first step on must not show the image beneath.
        if clean is None or (self.mask is not None and self.sampler.skipped == 0):
            return self.sampler.begin(noise)
        return self.sampler.path[0].add_noise(clean, noise)

    def _encoded_image(
        self, noise: Tensor, coder: ImageCoder
    ) -> tuple[Tensor | None, Conditioning, dict[str, Any]]:
        """Returns the image's latents, the conditioning and the context values made of it."""
        if self.image is None:
            return None, {}, {}
        clean = coder.encode(self.image).to(noise).expand_as(noise)
        if self.mask is None:
            return clean, {}, {}
        if self.model.is_inpainting:
            masked = coder.encode(greyed(self.image, self.mask)).to(noise)
            channels = inpainting_channels(self.mask, masked)
            return clean, {MASKED_IMAGE: {COND: channels}}, {}
        small = shrunk(self.mask, (noise.shape[-2], noise.shape[-1])).to(noise)
        return clean, {}, {KEPT: Kept(small, clean, noise)}

    def _denoised(
        self,
        conditioning: Conditioning,
        conditions: Sequence[AdapterCondition],
        coder: ImageCoder,
    ) -> Tensor:
        noise = self.noise.to(self.request.device, self.request.dtype)
        clean, image_conditioning, image_values = self._encoded_image(noise, coder)
        constants = {
            **image_values,
            "branches": self.request.branches,
            "seeds": tuple(source.initial_seed() for source in self.generators),
            "sequential": self.is_sequential,
            "guidance": scalar(self.guidance, self.request.device),
            "guidance_rescale": self.guidance_rescale,
        }
        denoise = self.model.at("denoise")
        with moved(denoise, self.offload):
            return denoising_loop(
                denoise,
                self._initial(noise, clean),
                self.sampler,
                {**conditioning, **image_conditioning},
                conditions,
                constants=constants,
                generators=self.generators,
                has_bar=self.has_bar,
                after_step=partial(self._after_step, decode=coder.decode),
            )

    def _after_step(
        self, step: int, latents: Tensor, clean: Tensor, decode: Callable[[Tensor], Tensor]
    ) -> bool:
        """Calls the caller's functions; returns whether the generation goes on."""
        if self.preview is not None:
            self.preview(Preview(step, clean.to(latents.dtype), decode))
        return self.callback(step, latents)
