"""IP-Adapter FaceID and its portraits, which read the embedding of a face alone."""

from typing import Any, ClassVar, Final

from jaxtyping import Float
from torch import Tensor

from refiners_core import Chain
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.face import FacePack
from refiners_core.models.image_prompt import Resampler, ResamplerConfig
from refiners_ipadapter.face import FacePrompt, LoraFacePrompt
from refiners_ipadapter.face_reader import RAW
from refiners_ipadapter.kind import FACE, PLUS, Kind
from refiners_ipadapter.projection import FaceProjection


class FaceId(LoraFacePrompt):
    """IP-Adapter FaceID, which reads the embedding of a face alone.

    Example:
        >>> FaceId(name="ip-adapter-faceid", lora_scale=0.6).optional_inputs
        ('face', 'negative', 'masks')
    """

    kind: ClassVar[Kind] = FACE

    def untrained(self, model: LatentDiffusion) -> Chain:
        """Builds the projection of an untrained adapter."""
        tokens = self.tokens or self.stated("tokens", 4)
        return FaceProjection(self.pack.width, model.unet.config.text_width, tokens)


class FaceIdPortrait(FaceId):
    """IP-Adapter FaceID Portrait, for several photos of a person: 16 tokens each, without a LoRA.

    Example:
        >>> FaceIdPortrait(name="ip-adapter-faceid-portrait").tokens
        16
    """

    def __init__(self, *, rank: int = 0, tokens: int = 16, **options: Any) -> None:
        super().__init__(rank=rank, tokens=tokens, **options)


class FaceIdUnnormed(FacePrompt):
    """IP-Adapter FaceID Portrait Unnorm, which resamples raw embeddings.

    Args:
        resampler: For an untrained adapter, the sizes of the resampler.
        options: `detector`, `blend`, and the arguments of every adapter.

    Example:
        >>> FaceIdUnnormed(name="ip-adapter-faceid-portrait-unnorm").pack.is_normed
        False
    """

    kind: ClassVar[Kind] = PLUS
    pack: FacePack = RAW

    def __init__(self, *, resampler: ResamplerConfig | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.resampler_config: Final = resampler

    def untrained(self, model: LatentDiffusion) -> Chain:
        """Builds the projection of an untrained adapter."""
        return Resampler(self.resampler_sizes(model, self.pack.width, self.resampler_config))

    def projected(self, features: tuple[Tensor, ...]) -> Float[Tensor, "count tokens width"]:
        """Returns the tokens of each face, which is a sequence of one feature vector."""
        return super().projected((features[0][:, None],))
