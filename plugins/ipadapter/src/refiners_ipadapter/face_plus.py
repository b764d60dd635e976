"""IP-Adapter FaceID Plus, which reads the embedding of a face and the patches of its picture."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core import Chain, Source
from refiners_core.errors import AdapterError
from refiners_core.models.clip import ClipImageConfig
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.models.image_prompt import ResamplerConfig
from refiners_core.option import number
from refiners_ipadapter.encoder import CLIP_PATCHES
from refiners_ipadapter.face import LoraFacePrompt, embeddings_of
from refiners_ipadapter.face_reader import FaceReader
from refiners_ipadapter.kind import FACE_PLUS, Kind
from refiners_ipadapter.projection import SHORTCUT, FaceProjection, FaceResampler
from refiners_ipadapter.prompt import Prompt, Rows, prompt_of


class FaceIdPlus(LoraFacePrompt):
    """IP-Adapter FaceID Plus, which reads the embedding of a face and the patches of its picture.

    The condition is a picture; or a mapping of `face`, as numbers, and `picture`, the aligned crop.

    Args:
        shortcut: Whether the tokens of the embedding are added to the result: True for version 2.
            By default the manifest decides, or the name of the file.
        shortcut_scale: With the shortcut, the weight of the picture beside the embedding. It may
            be changed between generations.
        encoder: For an untrained adapter, the sizes of the image encoder.
        options: `lora_scale`, `rank`, `detector`, `blend`, and the arguments of every adapter.

    Raises:
        AdapterError: `shortcut_scale` is not a finite number.

    Example:
        >>> FaceIdPlus(name="ip-adapter-faceid-plus", shortcut=True).optional_inputs
        ('face', 'picture', 'negative', 'masks')
    """

    outside: ClassVar[tuple[str, ...]] = ("encoder",)
    kind: ClassVar[Kind] = FACE_PLUS
    optional_inputs: ClassVar[tuple[str, ...]] = ("face", "picture", "negative", "masks")

    def __init__(
        self,
        *,
        shortcut: bool | None = None,
        shortcut_scale: float = 1.0,
        encoder: ClipImageConfig | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.shortcut: Final = shortcut
        self.shortcut_scale = shortcut_scale
        number("shortcut_scale", shortcut_scale, 1.0, of=self.key)
        self._given_encoder: Final = encoder
        self.encoder_config = encoder or ClipImageConfig()
        self.crop = 224

    @property
    def reader(self) -> FaceReader:
        """Reads faces with the crops of their pictures."""
        return FaceReader(self.key, self.pack, self.detector, self.crop)

    def has_shortcut(self, source: Source) -> bool:
        """Returns whether a file is of version 2, which has the same tensors as version 1.

        Raises:
            AdapterError: Neither option, manifest nor the name of the file tells.
        """
        setting = source.settings.get("shortcut", "by name")
        if self.shortcut is not None or isinstance(setting, bool):
            return setting if self.shortcut is None else self.shortcut
        name = source.files["weights"].name.lower()
        if "plusv2" in name or "plus-v2" in name or "plus_v2" in name:
            return True
        if "faceid-plus_" in name or "faceid-plus." in name:
            return False
        raise AdapterError(
            f"{name} may be a FaceID Plus or a FaceID Plus v2: their tensors are the same.",
            hint=f"""Give load_adapter("{name}", model, shortcut=True) for version 2, or False.""",
        )

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Builds the encoder and the parts of every face prompt, and loads their weights.

        Raises:
            WeightsError: A file is not of this kind, or not for a model of these sizes.
            AdapterError: The version of the file is not known.
        """
        stated = None if source is None else source.sizes("encoder", ClipImageConfig)
        self.encoder_config = self._given_encoder or stated or self.encoder_config
        super().build(model, source)
        self.encoder = CLIP_PATCHES.built(source, self.encoder_config, model.unet)
        self.crop = 224 if source is None else source.settings.get("crop", 224)

    def untrained(self, model: LatentDiffusion) -> Chain:
        """Builds the projection of an untrained adapter."""
        width = model.unet.config.text_width
        sizes = {"width": width, "inner": 4 * width, "out_width": width}
        features, heads = self.encoder_config.width, max(1, width // 64)
        config = ResamplerConfig(features=features, heads=heads, **sizes)
        known = {"features": features, "out_width": width}
        if self.source is not None:
            config = self.source.sizes("resampler", ResamplerConfig, **known) or config
        tokens = self.tokens or self.stated("tokens", 4)
        shortcut = self.shortcut
        if shortcut is None and self.source is not None:
            shortcut = self.source.settings.get("shortcut", False)
        face = FaceProjection(self.pack.width, width, tokens)
        return FaceResampler(face, config, bool(shortcut))

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses a value that cannot be read; no network runs.

        Raises:
            ConditionError: The value cannot be read.
            AdapterError: The weight of the picture is not a finite number.
        """
        number("shortcut_scale", self.shortcut_scale, 1.0, of=self.key)
        super().check(value, request)

    def prompt(self, value: Any, request: GenerationRequest) -> Prompt:
        """Reads faces, their pictures, negative faces and masks.

        Raises:
            ConditionError: The value cannot be read.
        """
        pictures = value.get("picture") if isinstance(value, Mapping) else None
        if isinstance(value, Mapping):
            value = {name: item for name, item in value.items() if name != "picture"}

        def rows(face: Any, name: str) -> Rows:
            return self.reader.rows(face, pictures if name == "face" else None, name == "face")

        return prompt_of(value, request, self.key, self.optional_inputs, rows)

    def features(self, items: Sequence[Any], request: GenerationRequest) -> tuple[Tensor, ...]:
        """Returns the embeddings of faces, and the features of the patches of their pictures."""
        faces = self.reader.faces(items)
        crops = [None if face is None else face.crop for face in faces]
        patches = CLIP_PATCHES.read(self.encoder, crops, request)
        return embeddings_of(faces, self.pack.width), patches

    def projected(self, features: tuple[Tensor, ...]) -> Float[Tensor, "count tokens width"]:
        """Returns the tokens of each face, with the weight of its picture."""
        weight = torch.tensor(float(self.shortcut_scale)).to(features[0])
        return self.parts.layer("projection", Chain)(*features, context={SHORTCUT: weight})
