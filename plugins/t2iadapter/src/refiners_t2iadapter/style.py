"""The style of a picture as tokens that the UNet reads after those of the text."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Concatenate,
    Edit,
    Multiply,
    Passthrough,
    Scope,
    Seat,
    SetContext,
    Source,
    Sum,
    UseContext,
    When,
)
from refiners_core.errors import WeightsError
from refiners_core.models.clip import (
    CLIP_IMAGE_KEYS,
    ClipImageConfig,
    ClipImageEncoder,
    clip_pixels,
)
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.weights import AS_IS, load, published, read
from refiners_t2iadapter.style_network import (
    StyleConfig,
    StyleNetwork,
    published_style,
    style_config,
    style_tensors,
)

VIT_L = ClipImageConfig(
    width=1024, inner_width=4096, layers=24, activation="quick_gelu", projection_width=768
)
"""The image encoder of `openai/clip-vit-large-patch14`."""


class StyleAdapter(Adapter):
    """Lets generated pictures take the style of a picture, as tokens after those of the text.

    Paper: arXiv:2302.08453, as in its authors' released code. The condition is a picture, or one
    per generated picture. Its tokens, times the scale, follow the text of every branch but
    `uncond`, which has its own last tokens again instead. Several add up.

    Args:
        encoder: For an untrained adapter, the sizes of the image encoder.
        config: For an untrained adapter, the sizes of the network; their widths are those of the
            encoder and the model.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Example:
        >>> StyleAdapter(name="t2i-style").takes_condition
        True
    """

    takes_condition: ClassVar[bool] = True
    outside: ClassVar[tuple[str, ...]] = ("encoder",)

    def __init__(
        self,
        *,
        encoder: ClipImageConfig | None = None,
        config: StyleConfig | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.encoder_config = encoder or VIT_L
        self.config = config or StyleConfig()

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Builds the network and its image encoder, and loads their weights.

        Raises:
            WeightsError: The file is not a style adapter for this model.
        """
        unet, width = model.unet, model.unet.config.text_width
        if source is not None:
            self.encoder_config = source.sizes("encoder", ClipImageConfig) or self.encoder_config
        if source is None or "weights" not in source.files:
            sizes = self.config
            self.config = StyleConfig(
                self.encoder_config.width, width, sizes.tokens, sizes.layers, sizes.heads
            )
            with built_on(unet.device):
                self.encoder = ClipImageEncoder(self.encoder_config).to(unet.dtype)
                self.parts = StyleNetwork(self.config).to(unet.dtype)
            if source is not None and (file := source.files.get("encoder")) is not None:
                load(self.encoder, _of_images(read(file)), CLIP_IMAGE_KEYS)
            return
        tensors = read(source.files["weights"])
        inside = style_tensors(tensors)
        self.config = style_config(tensors, source.settings.get("heads", self.config.heads))
        expected = self.encoder_config.width, width
        if (self.config.width, self.config.text_width) != expected:
            raise WeightsError(
                f"this style adapter turns {self.config.width} features into "
                f"{self.config.text_width}; this {model.base} and its image encoder need "
                f"{expected[0]} and {expected[1]}.",
                hint=f"Give one that was trained for {model.base}.",
            )
        placement: dict[str, Any] = {"dtype": unet.dtype, "device": unet.device}
        with built_on("meta"):
            self.encoder = ClipImageEncoder(self.encoder_config)
            self.parts = StyleNetwork(self.config)
        load(self.parts, inside, AS_IS, **placement)
        load(self.encoder, _of_images(read(source.files["encoder"])), CLIP_IMAGE_KEYS, **placement)
        self.requires_grad_(False)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Lets every cross-attention read the tokens of the style after those of the text."""

        def with_style(inner: nn.Module, seat: Seat) -> Scope:
            tokens = Sum(
                rest=UseContext(self._key("rest")),
                style=Chain(UseContext(self._key("tokens")), Multiply(self.scale_key)),
            )
            longer = Concatenate(text=UseContext("text"), style=When(self.scale_key, tokens))
            return Scope(text=Passthrough(longer, SetContext("text")), attention=inner)

        return model.slot("unet.cross_attention").wrap(with_style, stage="inputs", name="style")

    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Encodes a picture as tokens.

        Args:
            value: A picture, or one per generated picture.
            request: The generation.

        Raises:
            ConditionError: The value is not a picture.
        """
        x: Tensor = clip_pixels(value, self.encoder.config.image_size)
        x = x.to(request.device, request.dtype)
        for name in ("embed", "pre_norm", "transformer"):  # the tokens of the last layer, unnormed
            x = self.encoder.layer(name, nn.Module)(x)
        tokens = self.parts(x)
        none = torch.zeros_like(tokens)
        encoded = {"tokens": {"cond": tokens}, "rest": {"cond": none}}
        if "uncond" in request.branches:
            text = request.read(request.prompts["uncond"])["text"]
            encoded["tokens"]["uncond"] = none
            encoded["rest"]["uncond"] = text[:, -tokens.shape[1] :]
        return {self._key(name): branches for name, branches in encoded.items()}

    def published(self) -> Mapping[str, Tensor]:
        """Returns the weights under the authors' keys, without the image encoder."""
        return published_style(published(self.parts, AS_IS))

    def _key(self, name: str) -> str:
        return self.context_key(name)


def _of_images(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of the image encoder, from a file that may hold a whole CLIP."""
    return {
        key: value
        for key, value in tensors.items()
        if key.startswith(("vision_model.", "visual_projection."))
    }
