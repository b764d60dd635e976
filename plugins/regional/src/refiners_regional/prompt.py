"""Regional prompts: parts of a picture have texts, masks and adapters of their own."""

from collections.abc import Iterable
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Edit, Seat
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.diffusion import COND, UNCOND, GenerationRequest, LatentDiffusion
from refiners_core.option import number
from refiners_regional.attention import RegionalAttention
from refiners_regional.latents import RegionalPasses
from refiners_regional.mask import normalised
from refiners_regional.region import Region, read_regions
from refiners_regional.text import encoded_texts, region_texts

MODES: Final = ("latents", "attention")


class RegionalPrompts(Adapter):
    """Gives parts of a picture their own texts.

    The condition is a list of regions, or a list of such lists, one for each picture. A region is a
    mapping: `prompt`; `mask`, a picture or tensor of any size, or `box`, the left, top, right and
    lower edge as shares of the picture; and optionally `negative`, `weight`, and in the mode of
    latents `conditions`, which maps worn adapters to scales. The prompt of the generation is that
    of the whole picture: it fills what no region covers, and has the share `base` inside regions.

    In the mode `latents` the network runs once for each region and the predictions are joined by
    the masks (arXiv:2302.08113, section 4.2). Only there can an adapter, such as a LoRA, act in
    some regions alone: it acts in those that name it. In the mode `attention` each attention to the
    text runs once for each region (regional prompting, as web interfaces do it): quicker, but what
    is asked for one region leaks into others more often.

    Args:
        mode: `latents` or `attention`.
        base: The share of the prompt of the whole picture inside regions, in 0...1.
        feather: The deviation of a blur of the edges of regions, as a share of the shorter side of
            the picture.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: `mode` is unknown, `base` is not in 0...1, or `feather` is not in 0...0.5.

    Example:
        >>> RegionalPrompts(name="regional-prompts").mode
        'latents'
    """

    takes_condition: ClassVar[bool] = True

    def __init__(
        self,
        *,
        mode: str = "latents",
        base: float = 0.0,
        feather: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if mode not in MODES:
            raise AdapterError(
                f"regional prompts act in the mode {' or '.join(MODES)}, not {mode!r}.",
                hint='Try mode="latents".',
            )
        self.mode: Final = mode
        self.base: Final = number("base", base, 0.2, low=0, high=1)
        self.feather: Final = number("feather", feather, 0.05, low=0, high=0.5)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Wraps every attention to the text, or in the mode of latents the whole network."""

        def attention(inner: nn.Module, seat: Seat) -> nn.Module:
            return RegionalAttention(self, self.base, inner)

        def passes(inner: nn.Module, seat: Seat) -> nn.Module:
            return RegionalPasses(self, self.base, inner)

        if self.mode == "attention":
            seats = model.slot("unet.cross_attention")
            return seats.wrap(attention, name="regions", stage="output")
        return model.slot("denoise.predict").wrap(passes, name="regions", stage="output")

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses what are not regions.

        Raises:
            ConditionError: The value does not describe regions, or in the mode of attention a
                region has adapters.
        """
        self._factors(self._regions(value, request))

    @torch.no_grad()
    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Encodes the texts of all regions, and normalises their masks.

        Args:
            value: The regions.
            request: The generation.

        Raises:
            ConditionError: The value is refused by `check`.
        """
        pictures = self._regions(value, request)
        factors = self._factors(pictures)
        size = request.latent_height, request.latent_width
        rows = [torch.cat([region.mask for region in picture], 1) for picture in pictures]
        masks = normalised(torch.cat(rows), size)
        values: dict[str, dict[str, Tensor]] = {
            self.context_key("masks"): {COND: masks},
            **{
                self.context_key(f"factors.{key}"): {COND: torch.tensor([numbers])}
                for key, numbers in factors.items()
            },
        }
        # Others may record what they need in the pass of the whole picture.
        others = request.scales.keys() - {self.scale_key, *(f"{key}.scale" for key in factors)}
        if self.base == 0 and not others and bool((masks.sum(1) > 1 - 1e-6).all()):
            values[self.context_key("covered")] = {COND: torch.ones(1, 1)}
        by_pass = [
            {key: numbers[i] for key, numbers in factors.items()}
            for i in range(len(pictures[0]) + 1)
        ]
        for i in range(len(pictures[0])):
            regions = [picture[i] for picture in pictures]
            name = self.context_key(f"{{}}.{i}")
            values |= region_texts(regions, request, name, by_pass[i])
        if factors:
            name = self.context_key("{}.whole")
            values |= encoded_texts(request.prompts, request, name, by_pass[-1])
        if self.mode == "attention":
            negative = [[region.negative is not None for region in p] for p in pictures]
            acts = torch.tensor(negative, dtype=torch.float32, device="cpu")[..., None, None]
            values[self.context_key("masks")][UNCOND] = masks * acts
        return values

    def _regions(self, value: Any, request: GenerationRequest) -> list[list[Region]]:
        pictures = read_regions(value, request, self.key, self.feather)
        for picture in pictures:
            for i, region in enumerate(picture):
                if region.scales and self.mode != "latents":
                    raise ConditionError(
                        f"region {i} of {self.key} has adapters of its own, but in the mode of "
                        "attention all regions share the weights.",
                        hint='Load it with mode="latents", or pass '
                        "conditions={adapter: Condition(mask=...)}.",
                    )
                if region.scales != pictures[0][i].scales:
                    raise ConditionError(
                        f"region {i} of {self.key} has other adapters in some pictures.",
                        hint="Generate these pictures one by one.",
                    )
        return pictures

    def _factors(self, pictures: list[list[Region]]) -> dict[str, list[float]]:
        """Returns the factors of adapters that some regions name: in each region, and last in the
        whole picture, where they do not act."""
        regions = pictures[0]
        keys = dict.fromkeys(key for region in regions for key in region.scales)
        return {key: [*(region.scales.get(key, 0.0) for region in regions), 0.0] for key in keys}
