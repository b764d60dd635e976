"""The encoders of pictures: CLIP as a whole, the patches of CLIP, and the patches of DINOv2."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core import Chain, Source
from refiners_core.models.clip import (
    CLIP_IMAGE_KEYS,
    ClipImageConfig,
    ClipImageEncoder,
    clip_pixels,
)
from refiners_core.models.device import built_on
from refiners_core.models.dino import DINO_KEYS, DinoConfig, DinoImageEncoder, dino_pixels
from refiners_core.weights import KeyMap, load


@dataclass(frozen=True)
class Encoder:
    """How a picture becomes features."""

    config: Callable[..., Any]
    """Returns the sizes of a network, by default those of the released one."""
    network: Callable[[Any], Chain]
    """Builds a network."""
    layout: KeyMap
    """The published names of its weights."""
    pixels: Callable[[Any, Any], Tensor]
    """Returns the normalised pixels of pictures for a network of some sizes."""
    features: Callable[[Any, Tensor], Tensor]
    """Returns the features of pixels by a network."""
    is_blank_encoded: bool
    """Whether the absence of a picture is encoded, as zeros in place of normalised pixels;
    otherwise its features are zeros."""

    def sizes(self, source: Source) -> Any:
        """Returns the sizes of the network in the settings of a variant.

        Raises:
            AdapterError: The settings of the encoder have an unknown name.
        """
        return source.sizes("encoder", self.config) or self.config()

    def built(self, source: Source | None, config: Any, unet: Any) -> Chain:
        """Builds the network for a UNet, and loads it if there is a file for it.

        Args:
            source: The files of the adapter; None for an untrained one.
            config: The sizes for an untrained network; None for those that are released.
            unet: The UNet, whose dtype and device the network takes.

        Raises:
            AdapterError: The settings of the encoder have an unknown name.
            WeightsError: The file does not fit the settings.
        """
        path = None if source is None else source.files.get("encoder")
        if source is None or path is None:
            with built_on(unet.device):
                return self.network(config or self.config()).to(unet.dtype)
        with built_on("meta"):
            network = self.network(self.sizes(source))
        load(network, path, self.layout, dtype=unet.dtype, device=unet.device)
        return network.requires_grad_(False)

    def read(
        self, network: Any, pictures: Sequence[Tensor | None], request: Any
    ) -> Float[Tensor, "count ..."]:
        """Encodes pictures, or the absence of one, in one call of the network.

        Args:
            network: The network.
            pictures: Pixels in 0...1 of any sizes; None for no picture.
            request: The generation.
        """
        shown = [picture for picture in pictures if picture is not None]
        pixels = self.pixels(shown, network.config).to(request.device, request.dtype)
        if self.is_blank_encoded and len(shown) < len(pictures):
            pixels = torch.cat([pixels, torch.zeros_like(pixels[:1])])
        features = self.features(network, pixels)
        if not self.is_blank_encoded:
            features = torch.cat([features, torch.zeros_like(features[:1])])
        numbers = iter(range(len(shown)))
        blank = len(features) - 1
        rows = [blank if picture is None else next(numbers) for picture in pictures]
        return features[torch.tensor(rows, device=features.device)]


def _clip_pixels(pictures: Any, config: ClipImageConfig) -> Tensor:
    return clip_pixels(pictures, config.image_size)


def _dino_pixels(pictures: Any, config: DinoConfig) -> Tensor:
    return dino_pixels(pictures, config.input_size)


def _pooled(network: ClipImageEncoder, pixels: Tensor) -> Tensor:
    return network(pixels)


def _patches(network: DinoImageEncoder, pixels: Tensor) -> Tensor:
    return network(pixels)[:, 1:]


CLIP: Final = Encoder(
    ClipImageConfig, ClipImageEncoder, CLIP_IMAGE_KEYS, _clip_pixels, _pooled, False
)
"""CLIP's embedding of a picture."""
CLIP_PATCHES: Final = Encoder(
    ClipImageConfig,
    ClipImageEncoder,
    CLIP_IMAGE_KEYS,
    _clip_pixels,
    ClipImageEncoder.features,
    True,
)
"""CLIP's features of class token and patches before its last layer."""
DINO_PATCHES: Final = Encoder(DinoConfig, DinoImageEncoder, DINO_KEYS, _dino_pixels, _patches, True)
"""DINOv2's features of patches."""
