"""A network beside the UNet that adds what a picture of conditions asks for."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core import Adapter, Edit, Source
from refiners_core.errors import ConditionError
from refiners_core.models.control import build_control, control_edits
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.picture import to_mask, to_pixels

HIDDEN: Final = -1.0
"""What the released inpainting network was trained to see where a picture is to be filled in."""


class SideNetwork(Adapter, ABC):
    """A copy of a UNet's way down that runs first and sees a picture of conditions.

    That picture is encoded once per generation and seen by all branches of guidance. Several add
    up. A subclass says in `pixels` what becomes of what a generation is told.

    Args:
        channels: For an untrained one, the channels of each level of the condition's encoder; by
            default those of the released ones, for as many levels as the model's latents need.
        options: What every adapter takes: `weights`, `name`, `key`.
    """

    takes_condition: ClassVar[bool] = True

    def __init__(self, *, channels: Sequence[int] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.channels: Final = channels
        self.features_key: Final = self.context_key("features")

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Makes the side network in the sizes of the model's UNet, and loads it.

        Raises:
            WeightsError: The file is not that of a ControlNet of these sizes.
        """
        self.parts = build_control(
            model,
            source.files["weights"] if source else None,
            features=self.features_key,
            scale=self.scale_key,
            channels=self.channels,
        )

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Runs the side network before the UNet; adds its outputs to the skips and the middle."""
        return control_edits(model, self.parts.network, self.context_key)

    @abstractmethod
    def pixels(self, value: Any, size: tuple[int, int]) -> Float[Tensor, "count 3 height width"]:
        """Returns what the encoder sees.

        Args:
            value: What a generation is told.
            size: Height and width of the pictures to be made.

        Raises:
            ConditionError: It is nothing that can be seen.
        """

    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Encodes a picture of conditions.

        Args:
            value: What `pixels` takes.
            request: What is being generated.

        Raises:
            ConditionError: It is no picture, or the picture's size does not suit this ControlNet.
        """
        self.parts.check_size(request, self.key)
        pixels = self.pixels(value, (request.height, request.width))
        return {self.features_key: {"cond": self.parts.features(pixels, request)}}

    def published(self) -> Mapping[str, Tensor]:
        """Returns its weights in the layout of diffusers' folders."""
        return self.parts.published()


class ControlNet(SideNetwork):
    """Makes pictures follow another one: its edges, its depth, a pose (arXiv:2302.05543).

    Its condition is a picture with values in 0...1, or one for each picture to be made, resized to
    their size.

    Example:
        >>> ControlNet(name="controlnet-canny").takes_condition
        True
    """

    def pixels(self, value: Any, size: tuple[int, int]) -> Float[Tensor, "count 3 height width"]:
        """Returns a picture in 0...1, as it is given."""
        return to_pixels(value, size)


class InpaintControlNet(SideNetwork):
    """Fills in a part of a picture so that it suits the rest (ControlNet 1.1, `inpaint`).

    Its condition is a mapping: `picture`, in 0...1, and `mask`, white where it is to be filled in;
    there the network sees -1, which no picture has.

    Example:
        >>> InpaintControlNet(name="controlnet-inpaint").inputs
        ('picture', 'mask')
    """

    inputs: ClassVar[tuple[str, ...]] = ("picture", "mask")

    def pixels(self, value: Any, size: tuple[int, int]) -> Float[Tensor, "count 3 height width"]:
        """Returns a picture in 0...1, and -1 where the mask is above one half.

        Raises:
            ConditionError: One of the two is no picture, or there are masks for other pictures.
        """
        picture, mask = to_pixels(value["picture"], size), to_mask(value["mask"], size)
        if len(picture) != len(mask) and 1 not in (len(picture), len(mask)):
            raise ConditionError(
                f"{self.key} is told {len(picture)} pictures and {len(mask)} masks.",
                hint="Pass one mask, or one for each picture.",
            )
        return torch.where(mask > 0.5, HIDDEN, picture)
