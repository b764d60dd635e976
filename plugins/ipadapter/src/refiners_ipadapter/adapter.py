"""Image prompts: an attention to a picture beside each cross-attention (arXiv:2308.06721)."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from refiners_core import Adapter, Chain, Edit, Source
from refiners_core.errors import AdapterError
from refiners_core.models.clip import (
    CLIP_IMAGE_KEYS,
    ClipImageConfig,
    ClipImageEncoder,
    clip_pixels,
)
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.models.image_prompt import image_attentions, image_edits
from refiners_core.weights import load, published, read
from refiners_ipadapter.checkpoint import IP_ADAPTER_KEYS, projection_sizes
from refiners_ipadapter.projection import ImageProjection


class IpAdapter(Adapter):
    """Prompts a model with a picture beside the text (arXiv:2308.06721, section 3.2).

    The condition is a picture, or one per generated picture. Several IP-Adapters add up. The
    unconditional branch receives the projection of an embedding of zeros.

    Args:
        encoder: For an untrained adapter, the sizes of the image encoder; by default those of the
            released ViT-H.
        tokens: For an untrained adapter, the number of tokens per picture.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Example:
        >>> IpAdapter(name="ip-adapter").takes_condition
        True
    """

    takes_condition: ClassVar[bool] = True

    def __init__(
        self, *, encoder: ClipImageConfig | None = None, tokens: int = 4, **options: Any
    ) -> None:
        super().__init__(**options)
        self.encoder_config: Final = encoder or ClipImageConfig()
        self.tokens: Final = tokens
        self.tokens_key: Final = self.context_key("tokens")

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Builds an image attention for each cross-attention of the UNet and loads the weights.

        Raises:
            WeightsError: The file is not an IP-Adapter for a model of these sizes.
            AdapterError: The variant's `encoder` settings have an unknown name.
        """
        unet = model.unet
        if source is None:
            config = self.encoder_config
            embedding = config.projection_width or config.width
            with built_on(unet.device):
                self.encoder = ClipImageEncoder(config).to(unet.dtype)
                self.parts = self._parts(model, embedding, self.tokens).to(unet.dtype)
            return
        tensors = read(source.files["weights"])
        sizes = projection_sizes(tensors, unet.config.text_width)
        with built_on("meta"):
            self.encoder = ClipImageEncoder(_encoder_config(source))
            self.parts = self._parts(model, **sizes)
        placement: dict[str, Any] = {"dtype": unet.dtype, "device": unet.device}
        load(self.parts, tensors, IP_ADAPTER_KEYS, **placement)
        load(self.encoder, source.files["encoder"], CLIP_IMAGE_KEYS, **placement)
        self.requires_grad_(False)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Adds each image attention to its cross-attention, before the output projection."""
        return image_edits(model, self.parts.layer("branches", Chain))

    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Encodes a picture as tokens.

        Args:
            value: A picture, or one per generated picture.
            request: The generation.

        Raises:
            ConditionError: The value is not a picture.
        """
        pixels = clip_pixels(value, self.encoder.config.image_size)
        embedding = self.encoder(pixels.to(request.device, request.dtype))
        return {
            self.tokens_key: {
                "cond": self.parts.projection(embedding),
                "uncond": self.parts.projection(torch.zeros_like(embedding)),
            }
        }

    def published(self) -> Mapping[str, Tensor]:
        """Returns the weights under the keys of `h94/IP-Adapter`, without the image encoder."""
        return published(self.parts, IP_ADAPTER_KEYS)

    def _parts(self, model: LatentDiffusion, embedding: int, tokens: int) -> Chain:
        width = model.unet.config.text_width
        return Chain(
            projection=ImageProjection(embedding, width, tokens),
            branches=image_attentions(model, self.tokens_key, self.scale_key),
        )


def _encoder_config(source: Source) -> ClipImageConfig:
    sizes = source.settings.get("encoder", {})
    try:
        return ClipImageConfig(**{name.replace("-", "_"): size for name, size in sizes.items()})
    except TypeError as error:
        raise AdapterError(
            f"the variant {source.variant} has unknown settings for the image encoder: {error}.",
            hint="Its settings.encoder takes the arguments of ClipImageConfig.",
        ) from error
