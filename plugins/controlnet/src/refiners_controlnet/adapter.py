"""A network beside the UNet that adds what a picture of conditions asks for."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_controlnet.layout import LAYOUT, condition_channels
from refiners_controlnet.network import ConditionEncoder, ControlNetwork
from refiners_core import (
    Adapter,
    Chain,
    Distribute,
    Edit,
    Passthrough,
    Seat,
    SetContext,
    Source,
    Sum,
    UseContext,
    When,
)
from refiners_core.errors import ConditionError
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.picture import to_pixels
from refiners_core.weights import load, published, read

HIDDEN: Final = -1.0
"""What the released inpainting network was trained to see where a picture is to be filled in."""
RELEASED_CHANNELS: Final = (16, 32, 96, 256)
"""Channels of the condition's encoder in the released ControlNets."""


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
        unet = model.unet
        if source is None:
            levels = len(model.autoencoder.config.channels)
            channels = self.channels or RELEASED_CHANNELS[:levels]
            with built_on(unet.device):
                self.parts = self._parts(model, channels).to(unet.dtype)
        else:
            tensors = read(source.files["weights"])
            with built_on("meta"):
                self.parts = self._parts(model, condition_channels(tensors))
            load(self.parts, tensors, LAYOUT, dtype=unet.dtype, device=unet.device)
            self.parts.requires_grad_(False)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Runs the side network before the UNet; adds its outputs to the skips and the middle."""
        skips = model.slot("unet.skip.write")
        keys = {seat.path: self.context_key(f"skip.{i}") for i, seat in enumerate(skips)}
        mid = self.context_key("mid")

        def beside(inner: nn.Module, seat: Seat) -> Chain:
            write = Distribute(*map(SetContext, [*keys.values(), mid]))
            side = When(self.features_key, network=self.parts.network, write=write)
            return Chain(inner, Passthrough(side))

        def with_skip(inner: nn.Module, seat: Seat) -> Sum:
            key = keys[seat.path]
            return Sum(inner, When(key, control=UseContext(key)))

        def with_mid(inner: nn.Module, seat: Seat) -> Sum:
            return Sum(inner, When(mid, control=UseContext(mid)))

        return (
            *model.slot("unet.input").wrap(beside, name="control"),
            *skips.wrap(with_skip, name="control"),
            *model.slot("unet.mid.output").wrap(with_mid, name="control"),
        )

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
        encoder = self.parts.encoder
        if request.height != request.latent_height * encoder.reduction:
            raise ConditionError(
                f"{self.key} makes a pixel of {encoder.reduction} x {encoder.reduction}, this "
                f"model a latent of {request.height // request.latent_height}.",
                hint="Load one that was trained for latents of this size.",
            )
        pixels = self.pixels(value, (request.height, request.width))
        features = encoder(pixels.to(request.device, request.dtype))
        return {self.features_key: {"cond": features}}

    def published(self) -> Mapping[str, Tensor]:
        """Returns its weights in the layout of diffusers' folders."""
        return published(self.parts, LAYOUT)

    def _parts(self, model: LatentDiffusion, channels: Sequence[int]) -> Chain:
        config = model.unet.config
        return Chain(
            encoder=ConditionEncoder(channels, config.channels[0]),
            network=ControlNetwork(config, self.features_key, self.scale_key),
        )


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
        picture, mask = to_pixels(value["picture"], size), to_pixels(value["mask"], size)[:, :1]
        if len(picture) != len(mask) and 1 not in (len(picture), len(mask)):
            raise ConditionError(
                f"{self.key} is told {len(picture)} pictures and {len(mask)} masks.",
                hint="Pass one mask, or one for each picture.",
            )
        return torch.where(mask > 0.5, HIDDEN, picture)
