"""A published ControlNet: the encoder of the conditioning image, and the side network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import ConditionError
from refiners_core.models.control.layout import CONTROL_KEYS, condition_channels
from refiners_core.models.control.network import ConditionEncoder, ControlNetwork
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.models.unet import UNetConfig
from refiners_core.tree.chain import Chain
from refiners_core.weights import load, published, read

RELEASED_CHANNELS: Final = (16, 32, 96, 256)
"""The channels of the image encoder in the released ControlNets."""


class Control(Chain):
    """The encoder of a conditioning image and the side network that reads its features.

    They do not run as a chain: the encoder runs once per generation, the network at every step.

    Args:
        config: The sizes of the UNet.
        channels: The channels of each level of the encoder.
        features: The context key of the encoded image.
        scale: The context key by which the network multiplies its outputs, if it does.
        text: The context key of the tokens to which the network attends instead of `text`.
    """

    def __init__(
        self,
        config: UNetConfig,
        channels: Sequence[int],
        features: str,
        scale: str | None = None,
        text: str = "text",
    ) -> None:
        super().__init__(
            encoder=ConditionEncoder(channels, config.channels[0]),
            network=ControlNetwork(config, features, scale, text),
        )

    def features(
        self, pixels: Float[Tensor, "count 3 height width"], request: GenerationRequest
    ) -> Float[Tensor, "count features latent_height latent_width"]:
        """Encodes conditioning images in 0...1 of the size of the generated images."""
        return self.encoder(pixels.to(request.device, request.dtype))

    def check_size(self, request: GenerationRequest, adapter: str) -> None:
        """Checks that the features of a conditioning image have the size of the model's latents.

        Args:
            request: The generation.
            adapter: The name of the adapter, for messages.

        Raises:
            ConditionError: The sizes differ.
        """
        side = self.layer("encoder", ConditionEncoder).reduction
        if request.height != request.latent_height * side:
            raise ConditionError(
                f"{adapter} encodes {side} x {side} pixels to a position, this model "
                f"{request.height // request.latent_height} to a latent.",
                hint="Load one that was trained for latents of this size.",
            )

    def published(self) -> Mapping[str, Tensor]:
        """Returns the weights in the layout of diffusers."""
        return published(self, CONTROL_KEYS)


def build_control(
    model: LatentDiffusion,
    path: Path | None,
    *,
    features: str,
    scale: str | None = None,
    text: str = "text",
    channels: Sequence[int] | None = None,
) -> Control:
    """Builds a ControlNet with the sizes of a model's UNet and loads its weights.

    Args:
        model: The model.
        path: The file of a published ControlNet; None leaves the network untrained.
        features: The context key of the encoded image.
        scale: The context key by which the network multiplies its outputs, if it does.
        text: The context key of the tokens to which the network attends instead of `text`.
        channels: The channels of each level of an untrained encoder; by default those of the
            released ones, for as many levels as the model's latents need.

    Raises:
        WeightsError: The file is unreadable, or not a ControlNet of these sizes.
    """
    unet = model.unet
    if path is None:
        levels = len(model.autoencoder.config.channels)
        with built_on(unet.device):
            untrained = Control(
                unet.config, channels or RELEASED_CHANNELS[:levels], features, scale, text
            )
        return untrained.to(unet.dtype)
    tensors = read(path)
    with built_on("meta"):
        control = Control(unet.config, condition_channels(tensors), features, scale, text)
    load(control, tensors, CONTROL_KEYS, dtype=unet.dtype, device=unet.device)
    return control.requires_grad_(False)
