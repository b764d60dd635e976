"""One generation: everything is checked, then everything runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from refiners_core.models.device import moved
from refiners_core.models.diffusion import argument
from refiners_core.models.diffusion.conditioning import AdapterCondition, Told, acting, guides_of
from refiners_core.models.diffusion.denoise import COND, UNCOND
from refiners_core.models.diffusion.finite import check_finite
from refiners_core.models.diffusion.inpaint import (
    BESIDE,
    STAYS,
    Stays,
    beside,
    greyed,
    mask_of,
)
from refiners_core.models.diffusion.loop import Preview, denoising_loop
from refiners_core.models.diffusion.offload import target
from refiners_core.models.diffusion.request import GenerationRequest
from refiners_core.models.samplers import Sampler
from refiners_core.picture import shrunk, to_images, to_pixels
from refiners_core.tree.layer import running

if TYPE_CHECKING:
    from refiners_core.models.diffusion.latent_diffusion import LatentDiffusion

Pictures = Image.Image | list[Image.Image] | Tensor


@dataclass(frozen=True)
class Generation:
    """What `LatentDiffusion.generate` was asked for, checked; it documents the arguments."""

    model: "LatentDiffusion"
    request: GenerationRequest
    prompts: Mapping[str, Sequence[str]]
    """For each branch, a text for all pictures or one for each group of them."""
    each: int
    """How many pictures of a prompt follow one another."""
    guides: Sequence[AdapterCondition]
    """The adapters that act at some step."""
    sampler: Sampler
    guidance: float
    rescale: float
    """How far the contrast that guidance adds is taken back."""
    noise: Tensor
    sources: Sequence[torch.Generator]
    """Where the noise of a stochastic sampler's steps comes from, for each picture."""
    image: Tensor | None
    """Pixels in 0...1 of a picture to begin with, or of one for each."""
    mask: Tensor | None
    """Where that may change: 1 where it may, 0 elsewhere."""
    output: argument.Output
    is_single: bool
    """Whether the caller expects a picture rather than a list."""
    has_bar: bool
    callback: Callable[[int, Tensor], bool | None] | None
    preview: Callable[[Preview], Any] | None
    is_sequential: bool
    offload: torch.device | None
    """Where components go while they work; None leaves them where they are."""

    @classmethod
    def asked(cls, model: "LatentDiffusion", asked: Mapping[str, Any]) -> "Generation":
        """Checks the arguments of `generate`; nothing runs.

        Raises:
            GenerationError: An argument cannot be followed.
            ConditionError: A worn adapter needs a condition, or cannot have the one it is given.
        """
        prompts = argument.texts("prompt", asked["prompt"])
        each = argument.whole("count", asked["count"], 1)
        guidance = argument.number("guidance", asked["guidance"], 0, float("inf"), 7.5)
        negatives = argument.negatives(asked["negative_prompt"], prompts, guidance)
        steps = argument.whole("steps", asked["steps"], 30)
        image = argument.image(asked["image"], len(prompts) * each, asked["size"] is None)
        sampler = argument.sampler(asked["sampler"], model.sampler, steps)
        sampler = argument.strength(asked["strength"], sampler, image)
        argument.check_beginning(sampler, image is None)
        mask = mask_of(asked["mask"], image, len(prompts) * each, model.is_inpainting)
        factor = model.autoencoder.config.reduction
        width, height = argument.size(
            asked["size"],
            argument.default_size(asked["latents"], image, model.sides, factor),
            factor,
        )
        offload = target(asked["offload"])
        request = GenerationRequest(
            model=model,
            count=len(prompts) * each,
            branches=(UNCOND, COND) if guidance > 1 else (COND,),
            height=height,
            width=width,
            latent_height=height // factor,
            latent_width=width // factor,
            dtype=model.unet.dtype,
            device=offload or model.unet.device,
        )
        guides = acting(
            guides_of(model.adapters, asked["conditions"]), request, len(sampler.timesteps)
        )
        sources = argument.chance(asked["latents"], asked["seed"], request.count, sampler)
        return cls(
            model=model,
            request=request,
            prompts={UNCOND: negatives, COND: prompts},
            each=each,
            guides=guides,
            sampler=sampler,
            guidance=guidance,
            rescale=argument.number("guidance_rescale", asked["guidance_rescale"], 0, 1, 0.7),
            noise=argument.noise(
                asked["latents"], sources, model.autoencoder.config.latent_channels, request
            ),
            sources=sources if sampler.is_stochastic else (),
            image=None if image is None else to_pixels(image, (height, width)),
            mask=None
            if mask is None
            else torch.cat([shrunk(row, (height, width)) for row in mask]),
            output=argument.output(asked["output"]),
            is_single=(
                isinstance(asked["prompt"], str)
                and each == 1
                and not isinstance(asked["seed"], list | tuple)
            ),
            has_bar=bool(asked["progress"]),
            callback=argument.callback("callback", asked["callback"]),
            preview=argument.callback("preview", asked["preview"]),
            is_sequential=bool(asked["sequential"]),
            offload=offload,
        )

    @torch.no_grad()
    def run(self) -> Pictures:
        """Makes the pictures; meanwhile nobody injects into the model or ejects from it.

        What computes in which type is the model's affair: automatic casting around it is off.
        """
        kind = self.request.device.type
        with (
            running(self.model),
            torch.autocast("cpu", enabled=False),
            torch.autocast(kind, enabled=False),
        ):
            guides = list(self.guides)
            for i, guide in enumerate(guides):
                guide.follow(self.request)
                with moved(guide.adapter, self.offload):
                    guides[i] = guide.encoded(self.request)
            latents = self._denoised(self._texts(), guides)
            if self.output == "latents":
                return latents
            pixels = self.decoded(latents)
            check_finite(pixels, "autoencoder", self.model.autoencoder.dtype)
        if self.output == "tensor":
            return pixels
        images = to_images(pixels)
        return images[0] if self.is_single else images

    def _texts(self) -> Told:
        """Returns what the text encoder makes of the prompts, with the adapters' scales at hand."""
        scales = {guide.adapter.scale_key: guide.scale(self.request) for guide in self.guides}
        branches = self.request.branches
        texts = [text for name in branches for text in self.prompts[name]]
        with moved(self.model.text_encoder, self.offload):
            rows = self.model.read(texts, scales)
        told: dict[str, dict[str, Tensor]] = {
            key: {COND: value} for key, value in self.model.describe(self.request).items()
        }
        for key, value in rows.items():
            check_finite(value, "text_encoder", self.model.text_encoder.dtype)
            sizes = [len(self.prompts[name]) for name in branches]
            parts = zip(
                branches,
                value.to(self.request.device, self.request.dtype).split(sizes),
                strict=True,
            )
            told[key] = {name: self._repeated(name, part) for name, part in parts}
        return told

    def _repeated(self, branch: str, told: Tensor) -> Tensor:
        """Returns what a branch is told, for each picture where it is not the same for all."""
        if branch == UNCOND and self.model.is_silent_when_empty:
            says = torch.tensor(
                [text != "" for text in self.prompts[branch]], dtype=torch.bool, device=told.device
            )
            told = told * says.view(-1, *[1] * (told.ndim - 1))
        return told if len(told) == 1 else told.repeat_interleave(self.each, dim=0)

    def _begun(self, noise: Tensor, clean: Tensor | None) -> Tensor:
        """Returns the latents to begin with: noise, or an image that is partly taken back to it."""
        # Where a part is painted anew from the first step on, nothing of the image shines through.
        if clean is None or (self.mask is not None and self.sampler.skipped == 0):
            return self.sampler.begin(noise)
        return self.sampler.path[0].add_noise(clean, noise)

    def _seen(self, noise: Tensor) -> tuple[Tensor | None, Told, dict[str, Any]]:
        """Returns the latents of the image, what the UNet is told of it and what steps are."""
        if self.image is None:
            return None, {}, {}
        with moved(self.model.autoencoder, self.offload):
            clean = self.model.encode(self.image).to(noise).expand_as(noise)
            if self.mask is None:
                return clean, {}, {}
            if self.model.is_inpainting:
                masked = self.model.encode(greyed(self.image, self.mask)).to(noise)
                return clean, {BESIDE: {COND: beside(self.mask, masked)}}, {}
        small = shrunk(self.mask, (noise.shape[-2], noise.shape[-1])).to(noise)
        return clean, {}, {STAYS: Stays(small, clean, noise)}

    def _denoised(self, told: Told, guides: Sequence[AdapterCondition]) -> Tensor:
        noise = self.noise.to(self.request.device, self.request.dtype)
        clean, seen, lasting = self._seen(noise)
        with moved(self.model.at("denoise"), self.offload):
            return denoising_loop(
                self, self._begun(noise, clean), {**told, **seen}, lasting, guides
            )

    def decoded(self, latents: Tensor) -> Tensor:
        """Returns the pixels, in 0...1, that latents stand for."""
        with moved(self.model.autoencoder, self.offload):
            return self.model.decode(latents)
