"""A side network around the UNet's own layers: the adapter stores the changes alone."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from jaxtyping import Float
from torch import Tensor, nn

from refiners_core.models.control.change import ChangedLayer, LayerChange
from refiners_core.models.control.network import ConditionEncoder, ControlNetwork, control_outputs
from refiners_core.models.control.size import check_reduction
from refiners_core.models.diffusion import GenerationRequest
from refiners_core.models.unet import UNet, UNetConfig
from refiners_core.tree.bare_tree import bare_children, bare_walk
from refiners_core.tree.chain import Chain
from refiners_core.weights.key_map import KeyMap
from refiners_core.weights.load import published

SHARED: Final = ("time", "conv_in", "down", "mid")
"""The children of a UNet that a side network has as well."""


class SharedControl(nn.Module, ABC):
    """A side network whose weights are the UNet's own plus changes.

    It holds an image encoder, the convolutions of the outputs, and the changes; `network` wires
    them around the layers of a UNet. Nothing of the UNet is copied: the weights that it has when
    the network runs count. Adapters that the UNet wears do not reach the network. A subclass
    defines the layout in which it is published.

    Args:
        config: The sizes of the UNet.
        channels: The channels of each level of the image encoder.
        changes: The changes by path in the UNet.
        features: The context key of the encoded image.
        scale: The context key by which the network multiplies its outputs, if it does.
        text: The context key of the tokens to which the network attends instead of `text`.
        weights: The context key of the weights of outputs, for `ControlOutput`.
        is_pooled: Whether each output is the mean over all positions.
    """

    def __init__(
        self,
        config: UNetConfig,
        channels: Sequence[int],
        changes: Mapping[str, LayerChange],
        *,
        features: str,
        scale: str | None = None,
        text: str = "text",
        weights: str = "",
        is_pooled: bool = False,
    ) -> None:
        super().__init__()
        self.config: Final = config
        self.channels: Final = tuple(channels)
        self.keys: Final = features, scale, text
        self.encoder = ConditionEncoder(channels, config.channels[0])
        self.outputs = control_outputs(config, scale, weights, is_pooled)
        self.changes = nn.ModuleDict(
            {path.replace(".", "/"): change for path, change in changes.items()}
        )

    def network(self, unet: Chain) -> ControlNetwork:
        """Returns the side network around the layers of a UNet."""
        return ControlNetwork(
            self.config, *self.keys, trunk=self._trunk(unet), outputs=self.outputs
        )

    def features(
        self, pixels: Float[Tensor, "count 3 height width"], request: GenerationRequest
    ) -> Float[Tensor, "count features latent_height latent_width"]:
        """Encodes conditioning images in 0...1 of the size of the generated images."""
        return self.encoder(pixels.to(request.device, request.dtype))

    def check_size(self, request: GenerationRequest, adapter: str) -> None:
        """Checks that the features of a conditioning image have the size of the model's latents.

        Raises:
            ConditionError: The sizes differ.
        """
        check_reduction(self.encoder.reduction, request, adapter)

    def changed_layers(self) -> Iterator[tuple[str, LayerChange]]:
        """Yields the path in the UNet and the changes of each layer."""
        for name, change in self.changes.items():
            assert isinstance(change, LayerChange), "the constructor puts nothing else there"
            yield name.replace("/", "."), change

    def copy_encoder(self, unet: UNet) -> None:
        """Does nothing: the network already computes with the weights of the UNet."""

    def own_parts(self) -> Chain:
        """Returns the encoder and the outputs, as a tree that a layout of ControlNets names."""
        return Chain(encoder=self.encoder, network=Chain(outputs=self.outputs))

    @abstractmethod
    def published(self) -> Mapping[str, Tensor]:
        """Returns the encoder, the outputs and the changes under their published names."""

    def published_parts(self, keys: KeyMap) -> dict[str, Tensor]:
        """Returns the weights of encoder and outputs under their published names."""
        return published(self.own_parts(), keys)

    def _trunk(self, unet: Chain) -> dict[str, nn.Module]:
        """Returns new chains around the UNet's layers, with changed ones in place of some."""
        parts = Chain(**{name: _copied(bare_children(unet)[name]) for name in SHARED})
        known = dict(shared_layers(unet))
        # The first convolution is always wrapped: an inpainting UNet's reads more channels.
        changes = {"conv_in": LayerChange(), **dict(self.changed_layers())}
        for path, change in changes.items():
            above, _, name = path.rpartition(".")
            around = parts.layer(above, Chain) if above else parts
            around.replace(name, ChangedLayer(known[path], change))
        return dict(parts.children_by_name())


def shared_layers(unet: Chain) -> Iterator[tuple[str, nn.Module]]:
    """Yields the path and layer of every layer with weights that side networks share with a UNet.

    Only base layers are found, whatever adapters the UNet wears.
    """
    for name in SHARED:
        layer = bare_children(unet)[name]
        if not isinstance(layer, Chain):
            yield name, layer
            continue
        for path, part in bare_walk(layer, f"{name}."):
            if part._parameters:
                yield path, part


def network_path(path: str) -> str:
    """Returns the path in a `Control` of a layer at a path in the UNet."""
    return f"network.stem.{path}" if path.startswith("conv_in") else f"network.{path}"


def shape_of_change(tensor: Tensor, path: str, unet: UNet) -> tuple[int, ...]:
    """Returns the shape of a change of a UNet's tensor.

    An inpainting UNet's first convolution reads more channels than a side network, which reads the
    latents alone.

    Args:
        tensor: The UNet's tensor.
        path: The path of its layer in the UNet.
        unet: The UNet.
    """
    shape = tuple(tensor.shape)
    if path == "conv_in" and len(shape) > 1:
        return (shape[0], unet.config.out_channels, *shape[2:])
    return shape


def _copied(layer: nn.Module) -> nn.Module:
    return layer.copy() if isinstance(layer, Chain) else layer
