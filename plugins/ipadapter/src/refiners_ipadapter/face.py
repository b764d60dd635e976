"""The parts that all adapters of faces share: numbers or pictures of faces, and a LoRA."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Chain, Edit, Source
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.models.face import Detector, FacePack
from refiners_core.option import number
from refiners_core.weights import KeyMap
from refiners_ipadapter.face_reader import NORMED, Face, FaceReader
from refiners_ipadapter.image_prompt import ImagePrompt
from refiners_ipadapter.inner_lora import INNER_LORA_KEYS, inner_lora, lora_edits, rank_of
from refiners_ipadapter.prompt import Prompt, Rows, prompt_of


class FacePrompt(ImagePrompt):
    """Gives the people in generated pictures the face of a person.

    The condition is a face: 512 numbers, the embedding of insightface, or a picture in which the
    largest face is detected; or one per generated picture. `[[first, second]]` shows several faces
    to every generated picture, such as several photos of one person. A mapping has more:
    `{"face": ..., "negative": ..., "masks": ...}`. Where nothing is shown, the embedding is zeros.

    Args:
        detector: Finds faces in pictures: a prepared `insightface.app.FaceAnalysis`. By default
            one is made from the models in `~/.insightface` when it is first needed.
        options: `blend`, and the arguments of every adapter: `weights`, `name`, `key`.
    """

    optional_inputs: ClassVar[tuple[str, ...]] = ("face", "negative", "masks")
    pack: FacePack = NORMED
    """The face models that it was trained with; a variant may name others."""

    def __init__(self, *, detector: Detector | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.detector = detector

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Builds projection and attentions in the sizes of the model and loads their weights.

        Raises:
            WeightsError: The file is not of this kind, or not for a model of these sizes.
            AdapterError: The variant's `face` settings are malformed.
        """
        if source is not None:
            self.pack = type(self).pack.following(source.settings, self.key)
        super().build(model, source)

    @property
    def reader(self) -> FaceReader:
        """Reads faces, without their pictures."""
        return FaceReader(self.key, self.pack, self.detector)

    def prompt(self, value: Any, request: GenerationRequest) -> Prompt:
        """Reads faces, negative faces and masks.

        Raises:
            ConditionError: The value cannot be read.
        """
        return prompt_of(value, request, self.key, self.optional_inputs, self._rows)

    def features(self, items: Sequence[Any], request: GenerationRequest) -> tuple[Tensor, ...]:
        """Returns the embeddings of faces; those in pictures are detected."""
        return (embeddings_of(self.reader.faces(items), self.pack.width),)

    def _rows(self, value: Any, _: str) -> Rows:
        return self.reader.rows(value)


class LoraFacePrompt(FacePrompt):
    """A face prompt whose file contains a LoRA of all attentions, worn and taken off with it.

    Args:
        lora_scale: The strength of the LoRA, which the scale of the condition does not change; the
            adapter at scale 0 skips it as well. It may be changed between generations.
        rank: For an untrained adapter, the rank of the LoRA, 0 for none; None reads the settings of
            the variant, and without them is 128.
        tokens: For an untrained adapter, the number of tokens per face; None reads the settings of
            the variant, and without them is 4.
        options: `detector`, `blend`, and the arguments of every adapter.

    Raises:
        AdapterError: `lora_scale` is not a finite number.
    """

    def __init__(
        self,
        *,
        lora_scale: float = 1.0,
        rank: int | None = None,
        tokens: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.lora_scale = lora_scale
        number("lora_scale", lora_scale, 1.0, of=self.key)
        self.rank: Final = rank
        self.tokens: Final = tokens
        self.strength_key: Final = self.context_key("lora-scale")

    @property
    def layout(self) -> KeyMap:
        """The published names of the weights."""
        return super().layout | INNER_LORA_KEYS.under("lora", "ip_adapter")

    def further_parts(
        self, model: LatentDiffusion, tensors: Mapping[str, Tensor] | None
    ) -> dict[str, nn.Module]:
        """Builds the LoRA, if there is one."""
        if tensors is None:
            rank = self.stated("rank", 128) if self.rank is None else self.rank
        else:
            rank = rank_of(tensors)
        return {"lora": inner_lora(model, rank)} if rank else {}

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Adds image attentions to cross-attentions, and the LoRA to all attentions."""
        lora = dict(self.parts.children_by_name()).get("lora")
        edits = tuple(super().edits(model))
        if not isinstance(lora, Chain):
            return edits
        return (*edits, *lora_edits(model, lora, self.scale_key, self.strength_key))

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses a value that cannot be read; no network runs.

        Raises:
            ConditionError: The value cannot be read.
            AdapterError: The strength of the LoRA is not a finite number.
        """
        number("lora_scale", self.lora_scale, 1.0, of=self.key)
        super().check(value, request)

    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Encodes faces as tokens, with the strength of the LoRA.

        Raises:
            ConditionError: The value cannot be read, or no face is found.
        """
        values = super().encode(value, request)
        if self.lora_scale != 0:
            values[self.strength_key] = {"cond": torch.full((1, 1, 1), float(self.lora_scale))}
        return values


def embeddings_of(faces: Sequence[Face | None], width: int) -> Float[Tensor, "count width"]:
    """Returns the embeddings of faces, each `width` numbers; zeros for no face."""
    zeros = torch.zeros(width)
    return torch.stack([zeros if face is None else face.embedding for face in faces])
