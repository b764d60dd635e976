"""A network beside the UNet that steers it with a picture: edges, depth, a pose."""

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
"""The value that the released inpainting network reads for pixels under the mask."""


class SideNetwork(Adapter, ABC):
    """A copy of the UNet's encoder that runs before the UNet and reads a control picture.

    The picture is encoded once per generation and shared by all guidance branches. The outputs of
    several side networks add up. A subclass defines `pixels`, which prepares the condition.

    Args:
        channels: For an untrained adapter, the channels of each level of the picture's encoder; by
            default those of the released networks, for as many levels as the model's latents need.
        options: The arguments of every adapter: `weights`, `name`, `key`.
    """

    takes_condition: ClassVar[bool] = True

    def __init__(self, *, channels: Sequence[int] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.channels: Final = channels
        self.features_key: Final = self.context_key("features")

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Builds the side network in the sizes of the model's UNet and loads its weights.

        Raises:
            WeightsError: The file is not a ControlNet for a UNet of these sizes.
        """
        self.parts = build_control(
            model,
            source.files["weights"] if source else None,
            features=self.features_key,
            channels=self.channels,
        )

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Runs the side network before the UNet; adds its outputs to the skips and mid block."""
        return control_edits(model, self.parts.network, self.context_key, scale=self.scale_key)

    @abstractmethod
    def pixels(self, value: Any, size: tuple[int, int]) -> Float[Tensor, "count 3 height width"]:
        """Returns the pixels that the encoder reads.

        Args:
            value: The condition's value.
            size: Height and width of the generated pictures.

        Raises:
            ConditionError: The value is not a picture, or not what this adapter needs.
        """

    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Encodes a control picture.

        Args:
            value: The condition's value, as `pixels` takes it.
            request: The generation.

        Raises:
            ConditionError: The value is not a picture, or this ControlNet was trained for latents
                of another size.
        """
        self.parts.check_size(request, self.key)
        pixels = self.pixels(value, (request.height, request.width))
        return {self.features_key: {"cond": self.parts.features(pixels, request)}}

    def published(self) -> Mapping[str, Tensor]:
        """Returns the weights under the keys of diffusers' folders."""
        return self.parts.published()


class ControlNet(SideNetwork):
    """Makes generated pictures follow a control picture (arXiv:2302.05543).

    The control picture shows edges, a depth map or a pose, as the weights were trained for. The
    condition is a picture with values in 0...1, or one per generated picture, resized to their
    size.

    Example:
        >>> ControlNet(name="controlnet-canny").takes_condition
        True
    """

    def pixels(self, value: Any, size: tuple[int, int]) -> Float[Tensor, "count 3 height width"]:
        """Returns the picture in 0...1, resized."""
        return to_pixels(value, size)


class InpaintControlNet(SideNetwork):
    """Fills in the masked part of a picture to match the rest (ControlNet 1.1, `inpaint`).

    The condition is a mapping: `picture`, in 0...1, and `mask`, white where the picture is filled
    in. Pixels under the mask are set to -1, a value outside the range of pictures.

    Example:
        >>> InpaintControlNet(name="controlnet-inpaint").inputs
        ('picture', 'mask')
    """

    inputs: ClassVar[tuple[str, ...]] = ("picture", "mask")

    def pixels(self, value: Any, size: tuple[int, int]) -> Float[Tensor, "count 3 height width"]:
        """Returns the picture in 0...1, with -1 where the mask is above one half.

        Raises:
            ConditionError: The picture or the mask is not a picture, or their counts differ.
        """
        picture, mask = to_pixels(value["picture"], size), to_mask(value["mask"], size)
        if len(picture) != len(mask) and 1 not in (len(picture), len(mask)):
            raise ConditionError(
                f"{self.key} is given {len(picture)} pictures and {len(mask)} masks.",
                hint="Pass one mask, or one per picture.",
            )
        return torch.where(mask > 0.5, HIDDEN, picture)
