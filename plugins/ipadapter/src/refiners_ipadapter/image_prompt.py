"""The parts that all image prompts share: tokens, attentions to them, masks, negative pictures."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Edit, Source
from refiners_core.errors import ConditionError
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.models.image_prompt import (
    IMAGE_ATTENTION_KEYS,
    ResamplerConfig,
    image_attentions,
    image_edits,
    joined_masks,
    style_places,
    token_masks,
)
from refiners_core.weights import KeyMap, load, published, read
from refiners_ipadapter.kind import Kind, projection
from refiners_ipadapter.prompt import Blend, Prompt, Rows, check_blend


class ImagePrompt(Adapter):
    """Prompts a model with pictures or faces beside the text (arXiv:2308.06721, section 3.2).

    A subclass names the kind of its projection, reads the value of a condition and turns it into
    features.

    Args:
        blend: How several pictures act on one: `join` lets it attend to the tokens of all, and
            `average` to the tokens of their mean. It may be changed between generations.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: The blend has an unknown name.
    """

    takes_condition: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = True
    kind: ClassVar[Kind]
    """The kind of its projection."""

    def __init__(self, *, blend: Blend = "join", **options: Any) -> None:
        super().__init__(**options)
        self.blend = blend
        check_blend(blend, self.key)
        self.tokens_key: Final = self.context_key("tokens")
        self.mask_key: Final = self.context_key("mask")

    # --- defined by a subclass ---

    @abstractmethod
    def untrained(self, model: LatentDiffusion) -> Chain:
        """Builds the projection of an untrained adapter."""

    @abstractmethod
    def prompt(self, value: Any, request: GenerationRequest) -> Prompt:
        """Reads the value of a condition, without running a network.

        Raises:
            ConditionError: The value cannot be read.
        """

    @abstractmethod
    def features(self, items: Sequence[Any], request: GenerationRequest) -> tuple[Tensor, ...]:
        """Returns the inputs of the projection, a row for each item.

        Args:
            items: Those of a `Prompt`; None for no picture.
            request: The generation.
        """

    def further_parts(
        self, model: LatentDiffusion, tensors: Mapping[str, Tensor] | None
    ) -> dict[str, nn.Module]:
        """Builds the parts beside projection and attentions, by name.

        Args:
            model: The model.
            tensors: Published tensors; None for an untrained adapter.
        """
        return {}

    def stated(self, name: str, default: int) -> int:
        """Returns a number in the settings of the variant, for an untrained adapter."""
        return default if self.source is None else self.source.settings.get(name, default)

    def resampler_sizes(
        self, model: LatentDiffusion, features: int, default: ResamplerConfig | None
    ) -> ResamplerConfig:
        """Returns the sizes of the resampler of an untrained adapter.

        Args:
            model: The model.
            features: The features that it reads.
            default: The sizes that the caller gave; None for those in the settings of the variant,
                and without them for those of the released resamplers.
        """
        text = model.unet.config.text_width
        known = {"features": features, "out_width": text}
        stated = (
            None
            if self.source is None
            else self.source.sizes("resampler", ResamplerConfig, **known)
        )
        width = resampler_width(text)
        released = {"width": width, "heads": width // 64, "inner": 4 * width}
        return default or stated or ResamplerConfig(**known, **released)

    def has_shortcut(self, source: Source) -> bool:
        """Returns whether a published projection has a shortcut, which its tensors do not show."""
        return False

    @property
    def layout(self) -> KeyMap:
        """The published names of the weights."""
        return self.kind.layout.under("projection", "image_proj") | IMAGE_ATTENTION_KEYS.under(
            "branches", "ip_adapter"
        )

    # --- shared ---

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Builds projection and attentions in the sizes of the model and loads their weights.

        Raises:
            WeightsError: The file is not of this kind, or not for a model of these sizes.
        """
        path = None if source is None else source.files.get("weights")
        tensors = None if path is None else read(path)
        place = model.unet.device if tensors is None else "meta"
        with built_on(place):
            self.parts = Chain(
                projection=self.untrained(model)
                if source is None or tensors is None
                else projection(tensors, self.kind, self.has_shortcut(source)),
                branches=image_attentions(model, self.tokens_key, self.scale_key, self.mask_key),
                **self.further_parts(model, tensors),
            )
        if tensors is None:
            self.parts.to(model.unet.dtype)
            return
        placement: dict[str, Any] = {"dtype": model.unet.dtype, "device": model.unet.device}
        load(self.parts, tensors, self.layout, **placement)
        self.parts.requires_grad_(False)

    @torch.no_grad()
    def start(self, model: LatentDiffusion) -> None:
        """Sets the value projections to zero, so that the tokens of pictures add nothing yet."""
        for name, weight in self.parts.layer("branches", Chain).named_parameters():
            if name.endswith("to_v_ip.weight"):
                weight.zero_()

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Adds each image attention to its cross-attention, before the output projection."""
        return image_edits(model, self.parts.layer("branches", Chain))

    def named_places(self, model: LatentDiffusion) -> Mapping[str, Sequence[str]]:
        """Returns the places of InstantStyle: `style` and `layout` (arXiv:2404.02733)."""
        return style_places(model)

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses a value that cannot be read; no network runs.

        Raises:
            ConditionError: The value cannot be read, or `average` is asked for with masks.
            AdapterError: The blend has an unknown name.
        """
        check_blend(self.blend, self.key)
        if self.prompt(value, request).masks is not None and self.blend == "average":
            raise ConditionError(
                f"{self.key} averages pictures, so that each cannot have a mask.",
                hint='Leave the masks out, or set adapter.blend = "join".',
            )

    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Encodes pictures as tokens, in one call of the encoder.

        Args:
            value: The pictures; see the class.
            request: The generation.

        Raises:
            ConditionError: The value cannot be read.
        """
        prompt = self.prompt(value, request)
        shown = [item for row in prompt.rows for item in row]
        hidden = [item for row in prompt.negative for item in row]
        features = self.features([*shown, *hidden], request)
        features = tuple([part.to(request.device, request.dtype) for part in features])
        cond = self._tokens(tuple([part[: len(shown)] for part in features]), prompt.rows)
        uncond = self._tokens(tuple([part[len(shown) :] for part in features]), prompt.negative)
        # Repeated tokens leave attention to them unchanged.
        uncond = uncond.repeat(1, cond.shape[1] // uncond.shape[1], 1)
        values = {self.tokens_key: {"cond": cond, "uncond": uncond}}
        masks = joined_masks(prompt.masks, request.mask)
        if masks is not None:
            size = (request.latent_height, request.latent_width)
            values |= token_masks(self.mask_key, masks, size)
        return values

    def published(self) -> Mapping[str, Tensor]:
        """Returns the weights under the keys of `h94/IP-Adapter`, without the image encoder."""
        return published(self.parts, self.layout)

    def _tokens(
        self, features: tuple[Tensor, ...], rows: Rows
    ) -> Float[Tensor, "rows tokens width"]:
        pictures = len(rows[0])
        if self.blend == "average":
            features = tuple([part.unflatten(0, (-1, pictures)).mean(1) for part in features])
        tokens = self.projected(features)
        return tokens.unflatten(0, (len(rows), -1)).flatten(1, 2)

    def projected(self, features: tuple[Tensor, ...]) -> Float[Tensor, "count tokens width"]:
        """Returns the tokens of each row of features."""
        return self.parts.layer("projection", Chain)(*features)


def resampler_width(text_width: int) -> int:
    """Returns the width of the released resamplers: 768 for SD 1.5, 1280 for SDXL."""
    return 768 if text_width <= 768 else 1280
