"""The components of a latent diffusion model, and how texts and images pass through them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import ModelError
from refiners_core.model import Model
from refiners_core.models.clip.pair import (
    SECOND_TOKENS,
    SECOND_WINDOWS,
    TextEncoderPair,
    encoder_tokens,
)
from refiners_core.models.clip.reading import Reading, readings
from refiners_core.models.clip.text import POOLED
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.clip.window import JOINED, WINDOWS
from refiners_core.models.diffusion.active_word import active_words
from refiners_core.models.diffusion.denoise import Denoise
from refiners_core.models.diffusion.family import Family
from refiners_core.models.diffusion.finite import check_arithmetic
from refiners_core.models.diffusion.prompt_tokens import PromptTokens
from refiners_core.models.diffusion.request import GenerationRequest
from refiners_core.models.samplers import Sampler
from refiners_core.models.samplers.diffusers_scheduler import to_published
from refiners_core.models.unet import UNet
from refiners_core.models.vae import AutoencoderKL
from refiners_core.tree.chain import Chain
from refiners_core.tree.context import Context


class DiffusionComponents(Model):
    """A text encoder, a UNet, an autoencoder and one denoising step around the very same UNet.

    `LatentDiffusion` generates images with them and documents the arguments.
    """

    text_encoder: Chain
    unet: UNet
    autoencoder: AutoencoderKL
    denoise: Denoise

    def __init__(
        self,
        *,
        family: Family,
        base: str,
        facts: Mapping[str, Any],
        tokenizer: ClipTokenizer | None,
        sampler: Sampler,
        scheduler: Mapping[str, Any] | None = None,
        size: int | tuple[int, int],
        is_silent_when_empty: bool | None = None,
        text_encoder: Chain,
        unet: UNet,
        autoencoder: AutoencoderKL,
    ) -> None:
        super().__init__(
            base=base,
            facts=facts,
            slots=family.slots,
            layouts={part.path: part.keys for part in family.parts.values()},
            text_encoder=text_encoder,
            unet=unet,
            autoencoder=autoencoder,
            denoise=Denoise(
                unet,
                is_inpainting=unet.config.in_channels > autoencoder.config.latent_channels,
            ),
        )
        self.family: Final = family
        self.tokenizer: Final = tokenizer
        self.sampler: Final = sampler
        self.scheduler: Final[Mapping[str, Any]] = (
            to_published(sampler.schedule) if scheduler is None else dict(scheduler)
        )
        self.sides: Final = (size, size) if isinstance(size, int) else size
        self.size: Final = max(self.sides)
        self.is_silent_when_empty: Final = (
            family.is_silent_when_empty if is_silent_when_empty is None else is_silent_when_empty
        )

    @property
    def is_inpainting(self) -> bool:
        """Whether the UNet reads a mask and a masked image beside the latents."""
        return self.unet.config.in_channels > self.autoencoder.config.latent_channels

    def read(
        self,
        texts: Sequence[str],
        context: Mapping[str, Any] | Context,
        *,
        rows: Mapping[str, Tensor] | None = None,
        is_silent: Sequence[bool] = (),
    ) -> dict[str, Tensor]:
        """Encodes texts; returns, by context key, a tensor with a row for each text.

        `text` has the features of the tokens, (rows, tokens, width), and `pooled`, where an encoder
        pools, those of the whole text, (rows, width). A text that is longer than the encoder's
        window is encoded in several windows, whose tokens follow one another; its pooled features
        are those of the first window. `(word:1.2)` weights a word.

        Args:
            texts: The prompts.
            context: The values that adapters of the text encoder read: their scales.
            rows: The values that these adapters read by context key, with a row for each text.
            is_silent: Whether each text is encoded as zeros; none is by default.

        Raises:
            ModelError: The model was built without a tokenizer, or two worn adapters bring the same
                word.
        """
        reading = context if isinstance(context, Context) else Context(context)
        encoder = self.text_encoder
        laid = {
            key: value.to(encoder.device, encoder.dtype if value.is_floating_point() else None)
            for key, value in (rows or {}).items()
        }
        tokenizer, parts = self._readings(texts, reading)
        (ids, windows), *others = [
            Reading(ids, replace(part, rows=laid, is_silent=is_silent)).with_empty(tokenizer)
            for ids, part in parts
        ]
        for second_ids, second_windows in others:
            reading[SECOND_TOKENS] = second_ids.to(encoder.device)
            reading[SECOND_WINDOWS] = second_windows
        reading[WINDOWS] = windows
        for key, value in laid.items():
            reading[key] = value
        features = self.at("text_encoder")(ids.to(encoder.device), context=reading)
        if JOINED not in reading:  # an encoder that an adapter brings returns rows of windows
            features = windows.joined(features)
        encoded = {"text": features}
        if POOLED in reading:
            encoded["pooled"] = windows.first(reading[POOLED])
        return encoded

    def tokenize(self, texts: Sequence[str], context: Mapping[str, Any]) -> PromptTokens:
        """Returns the tokens of texts as `read` encodes them, one for each feature.

        Args:
            texts: The prompts.
            context: The scales of the adapters that act: only their words are single tokens.

        Raises:
            ModelError: As `read` raises it.
        """
        first, *others = self._readings(texts, Context(context))[1]
        windows = first.windows
        weights = windows.weights
        if weights is None:
            weights = torch.ones(first.ids.shape, dtype=torch.float32, device="cpu")
        second = others[0].ids if others else None
        return PromptTokens(
            tuple(
                [
                    windows.tiled(each)
                    for each in encoder_tokens(self.text_encoder, first.ids, second)
                ]
            ),
            windows.tiled(weights),
        )

    def _readings(
        self, texts: Sequence[str], reading: Context
    ) -> tuple[ClipTokenizer, list[Reading]]:
        """Returns the tokenizer, and the texts as the text encoder reads them; then as the second
        encoder of a pair reads them, if it does so otherwise."""
        if self.tokenizer is None:
            raise ModelError(
                f"this {self.base} has no tokenizer, so it cannot read.",
                hint="Build it with tokenizer=ClipTokenizer.load(folder).",
            )
        words = active_words(self, reading, encoders=2)
        tokenizers = [self.tokenizer.with_words(words[0])]
        if isinstance(self.text_encoder, TextEncoderPair):
            second = self.text_encoder.second_tokenizer(self.tokenizer, words, texts)
            tokenizers += [] if second is None else [second]
        return self.tokenizer, readings(texts, tokenizers)

    def check_whole(self) -> None:
        """Checks that the model can generate.

        Raises:
            ModelError: The model lacks its weights or its tokenizer, or this machine cannot compute
                in its dtype.
        """
        if self.tokenizer is None or self.unet.device.type == "meta":
            lack = "tokenizer" if self.tokenizer is None else "weights: it is on the meta device"
            raise ModelError(
                f"this {self.base} has no {lack}.", hint="Load it whole: load_model(...)."
            )
        check_arithmetic(self)

    def describe(self, request: GenerationRequest) -> dict[str, Float[Tensor, "1 numbers"]]:
        """Returns the `time_ids` of the images, for a UNet that reads them; otherwise nothing.

        They are height and width of the original, top and left of the crop, height and width of
        the target, in pixels, for an image that is not cropped (arXiv:2307.01952, section 2.2).
        """
        if self.unet.config.added_cond_width is None:
            return {}
        sides = float(request.height), float(request.width)
        time_ids = [[*sides, 0.0, 0.0, *sides]]
        return {"time_ids": torch.tensor(time_ids, dtype=torch.float32, device=request.device)}

    def encode(
        self,
        pixels: Float[Tensor, "rows 3 height width"],
        context: Mapping[str, Any] | Context | None = None,
    ) -> Float[Tensor, "rows channels latent_height latent_width"]:
        """Returns the mean latents of images in 0...1.

        Args:
            pixels: The images.
            context: The values that adapters of the autoencoder read: their scales.
        """
        encoder = self.autoencoder
        pixels = 2 * pixels.to(encoder.device, encoder.dtype) - 1
        return encoder.encode(pixels, sample=False, context=context)

    def decode(
        self,
        latents: Float[Tensor, "rows channels latent_height latent_width"],
        context: Mapping[str, Any] | Context | None = None,
    ) -> Float[Tensor, "rows image_channels height width"]:
        """Returns images in 0...1, float32.

        Args:
            latents: The latents of the images.
            context: The values that adapters of the autoencoder read: their scales.
        """
        decoder = self.autoencoder
        pixels = decoder.decode(latents.to(decoder.device, decoder.dtype), context=context)
        return (pixels.float() / 2 + 0.5).clamp(0, 1)
