"""A palette as a prompt: an attention to colours beside each cross-attention."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Edit, Source
from refiners_core.errors import ConditionError, Notice, WeightsError
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.models.image_prompt import image_attentions, image_edits
from refiners_core.weights import load, published, read
from refiners_palette.palette import MOST, Palette, read_palettes
from refiners_palette.projection import PALETTE_KEYS, PaletteProjection


class PaletteAdapter(Adapter):
    """Prompts a model with colours and their shares of the picture, beside the text.

    Each colour becomes a token, and a second attention beside each cross-attention reads the
    tokens, as IP-Adapter reads those of a picture (arXiv:2308.06721, section 3.2). The condition is
    a `Palette`, a list of colours, or a picture whose main colours are taken; or one per generated
    picture. In the unconditional branch no colour is present.

    Without weights it begins untrained and changes nothing.

    Args:
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Example:
        >>> PaletteAdapter(name="palette").takes_condition
        True
    """

    takes_condition: ClassVar[bool] = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.tokens_key: Final = self.context_key("tokens")

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Builds an attention to the palette for each cross-attention and loads the weights.

        Raises:
            WeightsError: The file is not a palette adapter for a model of these sizes.

        Warns:
            Notice: Nobody has published weights for the model.
        """
        unet = model.unet
        file = None if source is None else source.files.get("weights")
        if file is None:
            if source is not None and not source.begins:
                warnings.warn(
                    f"{self.key} has no weights for {model.base}, so it begins untrained and "
                    'changes nothing. Train it, or pass your file: file="palette.safetensors".',
                    Notice,
                    stacklevel=2,
                )
            with built_on(unet.device):
                self.parts = self._parts(model).to(unet.dtype)
                self._begin()
            return
        tensors = read(file)
        if "palette_proj.expand.weight" not in tensors:
            examples = ", ".join(sorted(tensors)[:3]) or "nothing"
            raise WeightsError(
                f"these are not the weights of a palette adapter: they hold {examples}.",
                hint="Give a file that adapter.save(path) of a palette adapter wrote.",
            )
        with built_on("meta"):
            self.parts = self._parts(model)
        load(self.parts, tensors, PALETTE_KEYS, dtype=unet.dtype, device=unet.device)
        self.requires_grad_(False)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Adds the attention to the palette to each cross-attention, before the projection."""
        return image_edits(model, self.parts.layer("branches", Chain))

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses a value that is not a palette.

        Raises:
            ConditionError: The value is not a palette, or the count does not match.
        """
        self._palettes(value, request)

    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Encodes a palette as tokens.

        Args:
            value: A palette, or one per generated picture.
            request: The generation.

        Raises:
            ConditionError: The value is refused by `check`.
        """
        numbers = torch.stack([palette.numbers() for palette in self._palettes(value, request)])
        numbers = numbers.to(request.device, request.dtype)
        project = self.parts.projection
        absent = numbers.new_zeros(1, MOST, numbers.shape[-1])
        return {self.tokens_key: {"cond": project(numbers), "uncond": project(absent)}}

    def published(self) -> Mapping[str, Tensor]:
        """Returns the weights: `palette_proj.*` and `palette.N.to_{k,v}_ip.weight`."""
        return published(self.parts, PALETTE_KEYS)

    def _palettes(self, value: Any, request: GenerationRequest) -> list[Palette]:
        palettes = read_palettes(value)
        if len(palettes) not in (1, request.count):
            raise ConditionError(
                f"{self.key} is given {len(palettes)} palettes to generate {request.count} "
                f"picture{'s'[: request.count - 1]}.",
                hint="Pass one, or one per generated picture.",
            )
        return palettes

    def _parts(self, model: LatentDiffusion) -> Chain:
        return Chain(
            projection=PaletteProjection(model.unet.config.text_width),
            branches=image_attentions(model, self.tokens_key, self.scale_key),
        )

    @torch.no_grad()
    def _begin(self) -> None:
        """Initialises the attentions so that they add nothing yet."""
        for name, weight in self.parts.named_parameters():
            if name.endswith("to_v_ip.weight"):
                nn.init.zeros_(weight)
