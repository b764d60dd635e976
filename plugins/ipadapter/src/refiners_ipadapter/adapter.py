"""IP-Adapters that read pictures (arXiv:2308.06721)."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from torch import Tensor

from refiners_core import Chain, Source
from refiners_core.models.clip import ClipImageConfig
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.models.dino import DinoConfig
from refiners_core.models.image_prompt import Resampler, ResamplerConfig
from refiners_ipadapter.encoder import CLIP, CLIP_PATCHES, DINO_PATCHES, Encoder
from refiners_ipadapter.image_prompt import ImagePrompt
from refiners_ipadapter.kind import FULL, LINEAR, PLUS, Kind
from refiners_ipadapter.projection import FullProjection, ImageProjection
from refiners_ipadapter.prompt import Prompt, picture_rows, prompt_of


class PicturePrompt(ImagePrompt):
    """Prompts a model with pictures beside the text (arXiv:2308.06721, section 3.2).

    The condition is a picture, or one per generated picture. `[[first, second]]` shows two pictures
    to every generated one, and `[[a, b], [c, d]]` two to each of two. A mapping has more:
    `{"picture": ..., "negative": ..., "masks": ...}`. The branch of the negative prompt sees the
    negative picture, or none. With masks each picture acts in its part of the generated one.

    Args:
        encoder: For an untrained adapter, the sizes of the image encoder; None reads the settings
            of the variant, and without them takes those of the released one.
        options: `blend`, and the arguments of every adapter: `weights`, `name`, `key`.
    """

    optional_inputs: ClassVar[tuple[str, ...]] = ("picture", "negative", "masks")
    outside: ClassVar[tuple[str, ...]] = ("encoder",)
    encoder_kind: ClassVar[Encoder]
    """How a picture becomes features."""

    def __init__(self, *, encoder: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self._given_encoder: Final = encoder
        self.encoder_config = encoder or self.encoder_kind.config()

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Builds the encoder and the parts of every image prompt, and loads their weights.

        Raises:
            WeightsError: A file is not of this kind, or not for a model of these sizes.
            AdapterError: The variant's `encoder` settings have an unknown name.
        """
        if self._given_encoder is None and source is not None and "encoder" in source.settings:
            self.encoder_config = self.encoder_kind.sizes(source)
        super().build(model, source)
        self.encoder = self.encoder_kind.built(source, self.encoder_config, model.unet)

    def prompt(self, value: Any, request: GenerationRequest) -> Prompt:
        """Reads pictures, negative pictures and masks.

        Raises:
            ConditionError: The value cannot be read.
        """
        return prompt_of(value, request, self.key, self.optional_inputs, picture_rows)

    def features(self, items: Sequence[Any], request: GenerationRequest) -> tuple[Tensor, ...]:
        """Returns the features of pictures."""
        return (self.encoder_kind.read(self.encoder, items, request),)


class IpAdapter(PicturePrompt):
    """An IP-Adapter with a linear projection of the embedding of a picture.

    Where nothing is shown, the embedding is zeros.

    Args:
        tokens: For an untrained adapter, the number of tokens per picture; None reads the settings
            of the variant, and without them is 4.
        options: `encoder`, `blend`, and the arguments of every adapter.

    Example:
        >>> IpAdapter(name="ip-adapter").takes_condition
        True
    """

    kind: ClassVar[Kind] = LINEAR
    encoder_kind: ClassVar[Encoder] = CLIP

    def __init__(
        self, *, encoder: ClipImageConfig | None = None, tokens: int | None = None, **options: Any
    ) -> None:
        super().__init__(encoder=encoder, **options)
        self.tokens: Final = tokens

    def untrained(self, model: LatentDiffusion) -> Chain:
        """Builds the projection of an untrained adapter."""
        config: ClipImageConfig = self.encoder_config
        embedding = config.projection_width or config.width
        tokens = self.tokens or self.stated("tokens", 4)
        return ImageProjection(embedding, model.unet.config.text_width, tokens)


class IpAdapterPlus(PicturePrompt):
    """An IP-Adapter Plus, which resamples the patches of a picture (section 4.1.2).

    Where nothing is shown, zeros in place of normalised pixels are encoded.

    Args:
        resampler: For an untrained adapter, the sizes of the resampler; None reads the settings of
            the variant, and without them takes those of the released ones for the model.
        options: `encoder`, `blend`, and the arguments of every adapter.

    Example:
        >>> IpAdapterPlus(name="ip-adapter-plus").optional_inputs
        ('picture', 'negative', 'masks')
    """

    kind: ClassVar[Kind] = PLUS
    encoder_kind: ClassVar[Encoder] = CLIP_PATCHES

    def __init__(
        self,
        *,
        encoder: Any = None,
        resampler: ResamplerConfig | None = None,
        **options: Any,
    ) -> None:
        super().__init__(encoder=encoder, **options)
        self.resampler_config: Final = resampler

    def untrained(self, model: LatentDiffusion) -> Chain:
        """Builds the projection of an untrained adapter."""
        return Resampler(
            self.resampler_sizes(model, self.encoder_config.width, self.resampler_config)
        )


class IpAdapterDino(IpAdapterPlus):
    """An IP-Adapter Plus that reads the patches of DINOv2 (arXiv:2304.07193) in place of CLIP's.

    No weights are published: a file of the user has the layout of IP-Adapter Plus. Without one, the
    encoder is the released one and the rest is untrained.

    Example:
        >>> IpAdapterDino(name="ip-adapter-dinov2").encoder_config.width
        1024
    """

    encoder_kind: ClassVar[Encoder] = DINO_PATCHES

    def __init__(self, *, encoder: DinoConfig | None = None, **options: Any) -> None:
        super().__init__(encoder=encoder, **options)


class IpAdapterFull(PicturePrompt):
    """An IP-Adapter Full, which projects every patch of a picture to a token.

    Where nothing is shown, zeros in place of normalised pixels are encoded.

    Example:
        >>> IpAdapterFull(name="ip-adapter-full-face").takes_mask
        True
    """

    kind: ClassVar[Kind] = FULL
    encoder_kind: ClassVar[Encoder] = CLIP_PATCHES

    def untrained(self, model: LatentDiffusion) -> Chain:
        """Builds the projection of an untrained adapter."""
        return FullProjection(self.encoder_config.width, model.unet.config.text_width)
