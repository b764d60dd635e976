"""A second attention beside each attention to the text, to an image (arXiv:2308.06721)."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from refiners_core import Adapter, Chain, Edit, Source
from refiners_core.errors import AdapterError
from refiners_core.models.clip import CLIP_IMAGE_KEYS, ClipImageConfig, ClipImageEncoder
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.models.image_prompt import image_attentions, image_edits
from refiners_core.weights import load, published, read
from refiners_ipadapter.checkpoint import LAYOUT, projection_sizes
from refiners_ipadapter.preprocessing import clip_pixels
from refiners_ipadapter.projection import ImageProjection


class IpAdapter(Adapter):
    """Prompts a model with a picture beside the text (arXiv:2308.06721, section 3.2).

    Its condition is a picture, or one for each picture to be made. Several IP-Adapters add up.
    The branch without a prompt is told of no picture: the projection of an embedding of zeros.

    Args:
        encoder: For an untrained one, the sizes of the image encoder; the released ViT-H's by
            default.
        tokens: For an untrained one, how many tokens stand for a picture.
        options: What every adapter takes: `weights`, `name`, `key`.

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
        """Makes an attention beside each of the model's to its text, and loads them.

        Raises:
            WeightsError: The file is not that of an IP-Adapter for a model of these sizes.
            AdapterError: The manifest's settings of the image encoder have a word too many.
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
        with built_on("meta"):
            self.encoder = ClipImageEncoder(_encoder_config(source))
            self.parts = self._parts(model, **projection_sizes(tensors, unet.config.text_width))
        where: dict[str, Any] = {"dtype": unet.dtype, "device": unet.device}
        load(self.parts, tensors, LAYOUT, **where)
        load(self.encoder, source.files["encoder"], CLIP_IMAGE_KEYS, **where)
        self.requires_grad_(False)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Adds what is seen in the image to what is seen in the text, before the projection."""
        return image_edits(model, self.parts.layer("branches", Chain))

    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Turns a picture into tokens.

        Args:
            value: A picture, or one for each picture to be made.
            request: What is being generated.

        Raises:
            ConditionError: It is no picture.
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
        """Returns its weights in the layout of `h94/IP-Adapter`; its image encoder stays apart."""
        return published(self.parts, LAYOUT)

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
            f"the variant {source.variant} describes an image encoder that there is none of: "
            f"{error}.",
            hint="Its settings.encoder may have the words of ClipImageConfig.",
        ) from error
