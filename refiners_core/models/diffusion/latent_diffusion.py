"""A latent diffusion model: text in, images out."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Unpack, overload

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from refiners_core.argument_names import explaining, unknown_arguments
from refiners_core.layers.residual_block import ResidualBlock
from refiners_core.layers.transformer import TransformerBlock
from refiners_core.models.clip.layer import ClipLayer
from refiners_core.models.diffusion.argument import DEFAULT_STRENGTH, Output
from refiners_core.models.diffusion.components import DiffusionComponents
from refiners_core.models.diffusion.generation import Generated, Generation
from refiners_core.models.diffusion.inversion import inverted
from refiners_core.models.diffusion.options import GenerateOptions
from refiners_core.models.diffusion.preview import Preview
from refiners_core.models.samplers import Sampler

Prompts = list[str] | tuple[str, ...]
Seeds = list[int] | tuple[int, ...]


class LatentDiffusion(DiffusionComponents):
    """Text to images by denoising latents (arXiv:2112.10752).

    Its components are `text_encoder`, `unet`, `autoencoder` and `denoise`, one denoising step as a
    tree around the very same UNet.

    Args:
        family: The family of the model: layouts, slots, defaults.
        base: The name of the base model for adapters, such as `sd15`; another one for other sizes.
        facts: The facts by which variants of adapters are chosen.
        tokenizer: Turns texts into rows of tokens; without one, nothing can be generated.
        sampler: The default sampler of `generate`, with the noise schedule of the UNet.
        scheduler: The published settings that samplers by name follow; by default the noise
            schedule of `sampler`.
        size: The default size of images in pixels: one side, or width and height.
        is_silent_when_empty: Whether an empty negative prompt is encoded as zeros, as SDXL was
            trained, instead of as the features of an empty text; by default as the family does.
        text_encoder: Turns rows of tokens into rows of features.
        unet: Predicts the noise in latents.
        autoencoder: Turns images into latents and back.
    """

    repeated = (ResidualBlock, TransformerBlock, ClipLayer)

    @overload
    def generate(
        self,
        prompt: str,
        *,
        count: Literal[1] = 1,
        seed: int | None = None,
        output: Literal["pil"] = "pil",
        **options: Unpack[GenerateOptions],
    ) -> Image.Image: ...

    @overload
    def generate(
        self,
        prompt: str,
        *,
        count: int,
        seed: int | None = None,
        output: Literal["pil"] = "pil",
        **options: Unpack[GenerateOptions],
    ) -> list[Image.Image]: ...

    @overload
    def generate(
        self,
        prompt: str,
        *,
        count: int = 1,
        seed: Seeds,
        output: Literal["pil"] = "pil",
        **options: Unpack[GenerateOptions],
    ) -> list[Image.Image]: ...

    @overload
    def generate(
        self,
        prompt: Prompts,
        *,
        count: int = 1,
        seed: int | Seeds | None = None,
        output: Literal["pil"] = "pil",
        **options: Unpack[GenerateOptions],
    ) -> list[Image.Image]: ...

    @overload
    def generate(
        self,
        prompt: str | Prompts,
        *,
        count: int = 1,
        seed: int | Seeds | None = None,
        output: Literal["tensor", "latents"],
        **options: Unpack[GenerateOptions],
    ) -> Tensor: ...

    @overload
    def generate(
        self,
        prompt: str | Prompts,
        *,
        count: int = 1,
        seed: int | Seeds | None = None,
        output: Output = "pil",
        **options: Unpack[GenerateOptions],
    ) -> Generated: ...

    @explaining
    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] = "",
        conditions: Mapping[Any, Any] | None = None,
        count: int = 1,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: Sampler | str | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        seed: int | Sequence[int] | None = None,
        latents: Float[Tensor, "rows channels latent_height latent_width"] | None = None,
        size: int | tuple[int, int] | None = None,
        image: Any = None,
        strength: float = DEFAULT_STRENGTH,
        mask: Any = None,
        output: Output = "pil",
        progress: bool = True,
        callback: Callable[[int, Tensor], bool | None] | None = None,
        sequential: bool = False,
        guidance_rescale: float = 0.0,
        offload: bool | str | torch.device = False,
        preview: Callable[[Preview], Any] | None = None,
        recipe: bool = True,
    ) -> Any:
        """Generates images.

        Args:
            prompt: A text, or a list of texts to generate images of each. `(word:1.2)` weights a
                word.
            negative_prompt: What the images must not show: one text for all prompts, or one each.
            conditions: The conditions of worn adapters, `{adapter: value}`. A `Condition` as value
                adds scale, span and mask; None leaves the adapter out this time.
            count: The number of images of each prompt.
            steps: The number of steps from noise to an image; by default as many as a worn adapter
                requires, or 30.
            guidance: The scale of classifier-free guidance, from 0. Up to 1 the UNet runs with the
                prompt alone. By default as a worn adapter requires, or 7.5.
            sampler: A name such as `euler` or `DPM++ 2M Karras`, or a `Sampler`; by default the one
                that a worn adapter requires, or the model's. A name follows the settings that the
                model's files state.
            timesteps: The training steps at which the steps begin, noisiest first, instead of
                `steps`; by default those that a worn adapter requires.
            sigmas: The noise levels, noise over signal, at which the steps begin and the last one
                ends, noisiest first, instead of `steps`.
            seed: The seed of the noise: a number, to which the i-th image adds i, or a list with
                one for each image. Batching does not change an image. By default torch's global
                generator draws the seed.
            latents: Initial noise instead of a seed, in one row or one for each image. Beside it a
                seed is for samplers that draw noise at each step.
            size: One side, or (width, height), in pixels; by default the image's, or the model's.
            image: An initial image, or one for each; it is resized to `size`.
            strength: How far the initial image is changed, in 0...1: the share of the steps that
                run.
            mask: Where the initial image may change: an image or a tensor, at least half white
                where it may. The rest is put back after each step; an inpainting model reads the
                masked image instead.
            output: `pil`, `tensor` for pixels (count, 3, height, width) in 0...1, or `latents`.
            progress: Whether a progress bar is shown.
            callback: Called with each step, from 0, and the latents after it; the generation ends
                early if it returns False.
            sequential: Whether the passes of guidance run one after the other, which gives the same
                images in less memory.
            guidance_rescale: How far, in 0...1, the contrast that guidance adds is taken back; 0.7
                suits models with zero terminal SNR (arXiv:2305.08891, section 3.4).
            offload: Whether each component, and each adapter's, is on the accelerator only while it
                works; or the device to use. One generation at a time.
            preview: Called after each step with a `Preview`, whose `images()` are those that the
                step predicts; they are decoded when asked for.
            recipe: Whether the images carry the recipe to make them again, which PNG, JPEG and WebP
                files keep: the arguments, the names and hashes of files, the hashes of conditions.

        Returns:
            An image if `prompt` is one text, `count` is 1 and `seed` is not a list; otherwise a
            list of images. A tensor for the other outputs.

        Raises:
            GenerationError: An argument has a wrong type, is out of range, or contradicts another;
                no network has run.
            NotFiniteError: A component returned infinite numbers or NaN.
            ConditionError: A worn adapter lacks its condition, or cannot use it.
            ModelError: The model has no weights or no tokenizer.
        """
        generation = Generation.checked(
            self,
            prompt,
            negative_prompt=negative_prompt,
            conditions=conditions,
            count=count,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            timesteps=timesteps,
            sigmas=sigmas,
            seed=seed,
            latents=latents,
            size=size,
            image=image,
            strength=strength,
            mask=mask,
            output=output,
            progress=progress,
            callback=callback,
            sequential=sequential,
            guidance_rescale=guidance_rescale,
            offload=offload,
            preview=preview,
            recipe=recipe,
        )
        self.check_whole()
        return generation.run()

    @explaining
    def invert(
        self,
        image: Any,
        prompt: str = "",
        *,
        conditions: Mapping[Any, Any] | None = None,
        steps: int | None = None,
        guidance: float = 1.0,
        sampler: Sampler | str | None = None,
        size: int | tuple[int, int] | None = None,
        progress: bool = True,
        offload: bool | str | torch.device = False,
    ) -> Float[Tensor, "levels channels latent_height latent_width"]:
        """Walks from an image back to noise: DDIM inversion (arXiv:2010.02502, section 4.3).

        `model.generate(prompt, latents=model.invert(image, prompt)[:1], guidance=1)` makes about
        the same image again.

        Args:
            image: One image; it is resized to `size`.
            prompt: A text that describes it.
            conditions: The conditions of worn adapters, as for `generate`; their spans count the
                steps of the way back, which begins at the image.
            steps: The number of steps; 30 by default.
            guidance: The scale of guidance. 1, no guidance, leads back best.
            sampler: The sampler whose levels are walked backwards, by name or as a value; by
                default the model's.
            size: One side, or (width, height), in pixels; by default that of the image.
            progress: Whether a progress bar is shown.
            offload: As for `generate`.

        Returns:
            The latents at each level of the way forward, noisiest first, and last of the image.

        Raises:
            GenerationError: An argument is refused; no network has run.
            ConditionError: A worn adapter lacks its condition, or cannot use it.
            ModelError: The model has no weights or no tokenizer.
        """
        return inverted(
            self,
            image,
            prompt,
            steps=steps,
            sampler=sampler,
            size=size,
            offload=offload,
            conditions=conditions,
            guidance=guidance,
            progress=progress,
        )

    def check(self, prompt: Any, **arguments: Any) -> None:
        """Checks the arguments of `generate`; neither weights nor a tokenizer are needed.

        Raises:
            ArgumentError: `generate` does not take an argument of this name.
            GenerationError, ConditionError: As `generate` raises them.
        """
        parameters = inspect.signature(LatentDiffusion.generate).parameters.values()
        defaults = {item.name: item.default for item in parameters if item.name != "self"}
        if unknown := [name for name in arguments if name not in defaults]:
            raise unknown_arguments("generate", unknown, defaults)
        Generation.checked(self, **{**defaults, "prompt": prompt, **arguments})
