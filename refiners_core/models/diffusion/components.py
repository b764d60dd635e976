"""The components of a latent diffusion model, and how texts and images pass through them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import ModelError
from refiners_core.model import Model
from refiners_core.models.clip.pair import SECOND_TOKENS, TextEncoderPair
from refiners_core.models.clip.prompt import apply_weights
from refiners_core.models.clip.text import POOLED
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.diffusion.denoise import Denoise
from refiners_core.models.diffusion.family import Family
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

    def read(self, texts: Sequence[str], context: Mapping[str, Any]) -> dict[str, Tensor]:
        """Encodes texts; returns, by context key, a tensor with a row for each text.

        `text` has the features of the tokens, (rows, tokens, width), and `pooled`, where an encoder
        pools, those of the whole text, (rows, width). A text that is longer than the encoder's
        window is encoded in several windows, whose tokens follow one another; its pooled features
        are those of the first window. `(word:1.2)` weights a word.

        Args:
            texts: The prompts.
            context: The values that adapters of the text encoder read: their scales.

        Raises:
            ModelError: The model was built without a tokenizer, or two worn adapters bring the same
                word.
        """
        if self.tokenizer is None:
            raise ModelError(
                f"this {self.base} has no tokenizer, so it cannot read.",
                hint="Build it with tokenizer=ClipTokenizer.load(folder).",
            )
        reading = Context(context)
        tokenizer = self.tokenizer.with_words(self._adapter_words(reading))
        windows = [tokenizer.windows(text) for text in texts]
        counts = [len(tokens) for tokens, _ in windows]
        rows = torch.cat([tokens for tokens, _ in windows])
        weights = torch.cat([weight for _, weight in windows])
        has_weights = bool((weights != 1).any())
        if has_weights:
            rows = torch.cat([rows, tokenizer.windows("")[0]])
        if isinstance(self.text_encoder, TextEncoderPair):
            read = [*texts, ""] if has_weights else texts
            second = self.text_encoder.second_tokens(tokenizer, read, [*counts, 1])
            if second is not None:
                reading[SECOND_TOKENS] = second.to(self.text_encoder.device)
        features = self.at("text_encoder")(rows.to(self.text_encoder.device), context=reading)
        if has_weights:
            features = apply_weights(features[:-1], weights, features[-1:])
        # Repeating the tokens leaves attention unchanged, so texts are tiled to equal length.
        length = math.lcm(*counts)
        encoded = {
            "text": torch.stack(
                [
                    part.flatten(0, 1).repeat(length // len(part), 1)
                    for part in features.split(counts)
                ]
            )
        }
        if POOLED in reading:
            first_windows = torch.tensor(
                [sum(counts[:i]) for i in range(len(counts))],
                dtype=torch.long,
                device=reading[POOLED].device,
            )
            encoded["pooled"] = reading[POOLED][first_windows]
        return encoded

    def _adapter_words(self, reading: Context) -> dict[str, int]:
        """Returns the words of active adapters, and gives each adapter its first token."""
        words: dict[str, int] = {}
        for adapter in self.adapters:
            if not adapter.words or adapter.scale_key not in reading:
                continue
            reading[adapter.context_key("words")] = -1 - sum(words.values())
            if duplicates := words.keys() & adapter.words.keys():
                raise ModelError(
                    f"{adapter.key} brings {min(duplicates)!r}, which another adapter brings as "
                    "well.",
                    hint="Eject one of them, or leave it out: conditions={adapter: None}.",
                )
            words |= adapter.words
        return words

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
        self, pixels: Float[Tensor, "rows 3 height width"]
    ) -> Float[Tensor, "rows channels latent_height latent_width"]:
        """Returns the mean latents of images in 0...1."""
        encoder = self.autoencoder
        return encoder.encode(2 * pixels.to(encoder.device, encoder.dtype) - 1, sample=False)

    def decode(
        self, latents: Float[Tensor, "rows channels latent_height latent_width"]
    ) -> Float[Tensor, "rows 3 height width"]:
        """Returns images in 0...1, float32."""
        decoder = self.autoencoder
        pixels = decoder.decode(latents.to(decoder.device, decoder.dtype))
        return (pixels.float() / 2 + 0.5).clamp(0, 1)
