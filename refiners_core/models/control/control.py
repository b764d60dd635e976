"""A published ControlNet: the encoder of the conditioning image, and the side network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.models.control.checkpoint import UNION, ControlFile
from refiners_core.models.control.difference import build_difference
from refiners_core.models.control.layout import CONTROL_KEYS
from refiners_core.models.control.network import (
    ConditionEncoder,
    ControlNetwork,
    control_trunk,
)
from refiners_core.models.control.shared import SharedControl, network_path, shared_layers
from refiners_core.models.control.size import check_reduction
from refiners_core.models.device import built_on
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.models.unet import MidBlock, UNet, UNetConfig
from refiners_core.tree.bare_tree import bare_walk
from refiners_core.tree.chain import Chain
from refiners_core.weights import load, published

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
        weights: The context key of the weights of outputs, for `ControlOutput`.
        is_pooled: Whether each output is the mean over all positions.
        is_cut: Whether the middle has a single residual block.
    """

    def __init__(
        self,
        config: UNetConfig,
        channels: Sequence[int],
        features: str,
        scale: str | None = None,
        text: str = "text",
        *,
        weights: str = "",
        is_pooled: bool = False,
        is_cut: bool = False,
    ) -> None:
        trunk = control_trunk(config)
        if is_cut:
            middle = trunk["mid"]
            assert isinstance(middle, MidBlock), "the trunk is new"
            middle.pop("resnet_1")
        network = ControlNetwork(
            config, features, scale, text, weights=weights, is_pooled=is_pooled, trunk=trunk
        )
        super().__init__(
            encoder=ConditionEncoder(channels, config.channels[0]),
            network=network,
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
        check_reduction(self.layer("encoder", ConditionEncoder).reduction, request, adapter)

    @torch.no_grad()
    def copy_encoder(self, unet: UNet) -> None:
        """Copies the weights of the UNet's way down and middle, without those of adapters.

        The first convolution copies the channels of the latents.
        """
        layers = dict(bare_walk(self))
        for path, layer in shared_layers(unet):
            twin = layers.get(network_path(path))
            for name, weight in () if twin is None else twin.named_parameters(recurse=False):
                values = layer.get_parameter(name)
                weight.copy_(
                    values[:, : weight.shape[1]]
                    if path == "conv_in" and weight.ndim > 1
                    else values
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
    weights: str = "",
    is_pooled: bool = False,
) -> Control | SharedControl:
    """Builds a ControlNet with the sizes of a model's UNet and loads its weights.

    Files are read in the layout of diffusers and in that of the original code. A file of
    differences is added to the UNet's own weights wherever the network runs.

    Args:
        model: The model.
        path: The file of a published ControlNet; None leaves the network untrained.
        features: The context key of the encoded image.
        scale: The context key by which the network multiplies its outputs, if it does.
        text: The context key of the tokens to which the network attends instead of `text`.
        channels: The channels of each level of an untrained encoder; by default those of the
            released ones, for as many levels as the model's latents need.
        weights: The context key of the weights of outputs, for `ControlOutput`.
        is_pooled: Whether each output is the mean over all positions.

    Raises:
        WeightsError: The file is unreadable, damaged, or not a ControlNet of these sizes.
    """
    unet = model.unet
    if path is None:
        levels = len(model.autoencoder.config.channels)
        with built_on(unet.device):
            untrained = Control(
                unet.config,
                channels or RELEASED_CHANNELS[:levels],
                features,
                scale,
                text,
                weights=weights,
                is_pooled=is_pooled,
            )
        return untrained.to(unet.dtype)
    file = ControlFile.read(path, unet.config)
    if UNION in file.tensors:
        raise WeightsError(
            "this file is a union: one ControlNet for several control types.",
            hint="Load it with an adapter for unions, such as controlnet-union.",
        )
    if file.is_difference:
        return build_difference(
            unet,
            file,
            features=features,
            scale=scale,
            text=text,
            weights=weights,
            is_pooled=is_pooled,
        )
    with built_on("meta"):
        control = Control(
            file.config,
            file.channels,
            features,
            scale,
            text,
            weights=weights,
            is_pooled=is_pooled,
            is_cut=file.is_cut,
        )
    load(control, file.tensors, file.keys, dtype=unet.dtype, device=unet.device)
    return control.requires_grad_(False)
