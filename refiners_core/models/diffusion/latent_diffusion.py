"""A latent diffusion model: text in, pictures out."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.argument_names import explaining
from refiners_core.errors import ModelError
from refiners_core.layers.residual_block import ResidualBlock
from refiners_core.layers.transformer import TransformerBlock
from refiners_core.model import Model
from refiners_core.models.clip.layer import ClipLayer
from refiners_core.models.clip.prompt import apply_weights
from refiners_core.models.clip.text import POOLED
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.diffusion.argument import DEFAULT_STRENGTH, Output
from refiners_core.models.diffusion.denoise import Denoise
from refiners_core.models.diffusion.finite import check_arithmetic
from refiners_core.models.diffusion.generation import Generation
from refiners_core.models.diffusion.loop import Preview
from refiners_core.models.diffusion.request import GenerationRequest
from refiners_core.models.samplers import Sampler
from refiners_core.models.unet import UNet
from refiners_core.models.vae import AutoencoderKL
from refiners_core.surgery.selection import Selection
from refiners_core.tree.chain import Chain
from refiners_core.tree.context import Context


class LatentDiffusion(Model):
    """Text to pictures by denoising latents (arXiv:2112.10752).

    Its components are `text_encoder`, `unet`, `autoencoder` and `denoise`, which is one step as a
    tree around the very same UNet.

    Args:
        base: The family that adapters and manifests name.
        facts: What variants of adapters are compared with.
        slots: The stable names of its places.
        tokenizer: Turns texts into rows of tokens; without one, nothing can be generated.
        sampler: What steps are made with unless `generate` is told otherwise.
        size: The side of its pictures, or width and height, in pixels, by default.
        is_silent_when_empty: Whether an empty negative prompt is told as zeros, as SDXL was
            trained, instead of as the features of no words.
        text_encoder: Turns rows of tokens into rows of features.
        unet: Predicts what noise there is.
        autoencoder: Turns pictures into latents and back.
    """

    repeated = (ResidualBlock, TransformerBlock, ClipLayer)

    text_encoder: Chain
    unet: UNet
    autoencoder: AutoencoderKL
    denoise: Denoise

    def __init__(
        self,
        *,
        base: str,
        facts: Mapping[str, Any],
        slots: Mapping[str, Callable[[Any], Selection]],
        tokenizer: ClipTokenizer | None,
        sampler: Sampler,
        size: int | tuple[int, int],
        is_silent_when_empty: bool = False,
        text_encoder: Chain,
        unet: UNet,
        autoencoder: AutoencoderKL,
    ) -> None:
        super().__init__(
            base=base,
            facts=facts,
            slots=slots,
            text_encoder=text_encoder,
            unet=unet,
            autoencoder=autoencoder,
            denoise=Denoise(
                unet,
                is_inpainting=unet.config.in_channels > autoencoder.config.latent_channels,
            ),
        )
        self.tokenizer: Final = tokenizer
        self.sampler: Final = sampler
        self.sides: Final = (size, size) if isinstance(size, int) else size
        self.size: Final = max(self.sides)
        self.is_silent_when_empty: Final = is_silent_when_empty

    @property
    def is_inpainting(self) -> bool:
        """Whether its UNet sees a mask and a masked picture beside the latents."""
        return self.unet.config.in_channels > self.autoencoder.config.latent_channels

    def read(self, texts: Sequence[str], context: Mapping[str, Any]) -> dict[str, Tensor]:
        """Returns what the networks are told of texts: for each context key, a row for each text.

        A long text is read in windows of as many tokens as the encoder takes, whose features follow
        one another; as a whole it is what its first window is. `(word:1.2)` stresses a word.

        Args:
            texts: Prompts.
            context: What adapters of the text encoder find there: their scales.

        Raises:
            ModelError: The model was built without a tokenizer.
        """
        if self.tokenizer is None:
            raise ModelError(
                f"this {self.base} has no tokenizer, so it cannot read.",
                hint="Build it with tokenizer=ClipTokenizer.load(folder).",
            )
        reading = Context(context)
        tokenizer = self.tokenizer.with_words(self._words(reading))
        windows = [tokenizer.windows(text) for text in texts]
        counts = [len(tokens) for tokens, _ in windows]
        rows = torch.cat([tokens for tokens, _ in windows])
        weights = torch.cat([weight for _, weight in windows])
        is_stressed = bool((weights != 1).any())
        if is_stressed:
            rows = torch.cat([rows, tokenizer.windows("")[0]])
        features = self.at("text_encoder")(rows.to(self.text_encoder.device), context=reading)
        if is_stressed:
            features = apply_weights(features[:-1], weights, features[-1:])
        # Attention sees twice what it sees once if all is said twice: so texts become equally long.
        most = math.lcm(*counts)
        told = {
            "text": torch.stack(
                [part.flatten(0, 1).repeat(most // len(part), 1) for part in features.split(counts)]
            )
        }
        if POOLED in reading:
            firsts = torch.tensor(
                [sum(counts[:i]) for i in range(len(counts))],
                dtype=torch.long,
                device=reading[POOLED].device,
            )
            told["pooled"] = reading[POOLED][firsts]
        return told

    def _words(self, reading: Context) -> dict[str, int]:
        """Returns the words that adapters which act bring, and tells each its first token."""
        words: dict[str, int] = {}
        for adapter in self.adapters:
            if not adapter.words or adapter.scale_key not in reading:
                continue
            reading[adapter.context_key("words")] = -1 - sum(words.values())
            if twice := words.keys() & adapter.words.keys():
                raise ModelError(
                    f"{adapter.key} brings {min(twice)!r}, which another adapter brings as well.",
                    hint="Eject one of them, or leave it out: conditions={adapter: None}.",
                )
            words |= adapter.words
        return words

    def describe(self, request: GenerationRequest) -> dict[str, Float[Tensor, "1 numbers"]]:
        """Returns what the UNet is told of the sizes of pictures, where it asks: `time_ids`.

        The whole picture counts, as if nothing had been cropped (arXiv:2307.01952, section 2.2).
        """
        if self.unet.config.added_cond_width is None:
            return {}
        sides = float(request.height), float(request.width)
        numbers = [[*sides, 0.0, 0.0, *sides]]
        return {"time_ids": torch.tensor(numbers, dtype=torch.float32, device=request.device)}

    def encode(
        self, pixels: Float[Tensor, "rows 3 height width"]
    ) -> Float[Tensor, "rows channels latent_height latent_width"]:
        """Returns the mean latents of pictures in 0...1."""
        encoder = self.autoencoder
        return encoder.encode(2 * pixels.to(encoder.device, encoder.dtype) - 1, sample=False)

    def decode(
        self, latents: Float[Tensor, "rows channels latent_height latent_width"]
    ) -> Float[Tensor, "rows 3 height width"]:
        """Returns pictures in 0...1, float32."""
        decoder = self.autoencoder
        pixels = decoder.decode(latents.to(decoder.device, decoder.dtype))
        return (pixels.float() / 2 + 0.5).clamp(0, 1)

    def to_diffusers(self) -> Any:
        """Returns a pipeline of diffusers that has the very tensors of this model, bare.

        Raises:
            ModelError: diffusers is not installed, or the model has no tokenizer or no weights.
        """
        # Not at the top: that module knows the families, and they know this class.
        from refiners_core.models.formats.pipeline import to_pipeline

        return to_pipeline(self)

    @explaining
    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] = "",
        conditions: Mapping[Any, Any] | None = None,
        count: int = 1,
        steps: int = 30,
        guidance: float = 7.5,
        sampler: Sampler | str | None = None,
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
    ) -> Any:
        """Makes pictures.

        Args:
            prompt: What they show; a list makes pictures of each. `(word:1.2)` stresses a word.
            negative_prompt: What they do not show; one for all prompts, or one for each.
            conditions: What worn adapters are told: `{adapter: value}`. A `Condition` as value adds
                scale, span and mask; None leaves the adapter out this time.
            count: How many pictures of each prompt.
            steps: How many steps lead from noise to a picture.
            guidance: How far to go beyond what the prompt alone says, from 0; up to 1, no pass runs
                without the prompt.
            sampler: A name or a value; the model's own by default.
            seed: Where noise comes from: a number, to which the i-th picture adds i, or one for
                each.
                A picture is the same alone and in company. By default torch's generator draws it.
            latents: Noise of one's own to begin with, one row or one for each picture. A seed
                beside it is for samplers that draw noise at each step.
            size: A side, or (width, height), in pixels; by default the image's, or the model's.
            image: A picture, or one for each, to begin with; it is resized to `size`.
            strength: How far, in 0...1, the image is taken back to noise.
            mask: Where the image may change: a picture or tensor, of which what is at least half
                white changes. The rest is put back after each step, or, if the model was trained to
                paint into pictures, shown to it.
            output: `pil`, `tensor` for pixels (count, 3, height, width) in 0...1, or `latents`.
            progress: Whether a bar shows the steps.
            callback: Called with each step, from 0, and the latents after it; where it returns
                False, the generation ends with what there is.
            sequential: Whether passes run one after the other, to the same result in less memory.
            guidance_rescale: How far, in 0...1, strong guidance is kept from adding contrast; 0.7
                suits models that learnt of pure noise (arXiv:2305.08891, section 3.4).
            offload: Whether each component, and each adapter's, goes to the accelerator only while
                it works, and is back afterwards; or the device to go to. One generation at a time.
            preview: Called after each step with a `Preview`, whose `images()` show what the step
                takes the pictures for; they are decoded when asked for.

        Returns:
            An image if `prompt` is one text, `count` 1 and `seed` no list, otherwise a list of
            them; a tensor for other outputs.

        Raises:
            GenerationError: An argument cannot be followed; nothing has run.
            NotFiniteError: A component lost its numbers, at the step that is named.
            ConditionError: A worn adapter is told nothing, or what it cannot use.
            ModelError: The model has no weights.
        """
        asked = dict(locals())  # the arguments by name: nothing else is defined yet
        del asked["self"]
        generation = Generation.asked(self, asked)
        self._check_whole()
        return generation.run()

    def check(self, prompt: Any, **arguments: Any) -> None:
        """Checks what `generate` would be given; neither weights nor a tokenizer are needed.

        Raises:
            GenerationError, ConditionError: An argument cannot be followed.
        """
        parameters = inspect.signature(LatentDiffusion.generate).parameters
        defaults = {name: one.default for name, one in parameters.items() if name != "self"}
        Generation.asked(self, {**defaults, "prompt": prompt, **arguments})

    def _check_whole(self) -> None:
        """Raises a `ModelError` if something is missing without which nothing can be generated."""
        if self.tokenizer is None or self.unet.device.type == "meta":
            lacks = "tokenizer" if self.tokenizer is None else "weights: it is on the meta device"
            raise ModelError(
                f"this {self.base} has no {lacks}.", hint="Load it whole: load_model(...)."
            )
        check_arithmetic(self)
