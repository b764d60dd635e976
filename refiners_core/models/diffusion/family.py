"""A family of latent diffusion models: everything in which it differs from other families."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from refiners_core.models.clip.config import ClipTextConfig
from refiners_core.models.config_reader import Published
from refiners_core.models.samplers import ScheduleConfig
from refiners_core.models.unet import UNetConfig
from refiners_core.models.vae import AutoencoderConfig
from refiners_core.surgery.slot import Slot
from refiners_core.tree.chain import Chain
from refiners_core.weights import KeyMap


@dataclass(frozen=True)
class Part:
    """A part of a model that is published with weights of its own."""

    path: str
    """The path of the part in the model."""
    keys: KeyMap
    """The layout in which diffusers and transformers publish it."""


@dataclass(frozen=True)
class Family:
    """A family of models, such as Stable Diffusion XL: sizes, layouts, slots and text encoding."""

    name: str
    """The name of the family in adapters and manifests, such as `sdxl`."""
    size: int
    """The side of the released model's images in pixels."""
    unet: UNetConfig
    """The sizes of the released UNet."""
    text_encoders: tuple[ClipTextConfig, ...]
    """The sizes of the released text encoders, in the order of their features."""
    autoencoder: AutoencoderConfig
    """The sizes of the released autoencoder."""
    build_text_encoder: Callable[[Sequence[ClipTextConfig], int], Chain]
    """Builds the text encoder from the sizes of its encoders and the padding of the last one."""
    parts: Mapping[str, Part]
    """The parts by their published names: `unet`, `vae`, `text_encoder`, ..."""
    single_file_text_keys: KeyMap
    """The layout of the text encoder in a single file; families share that of the other parts."""
    slots: Mapping[str, Slot]
    """The stable names of places in the models."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The noise schedule of the released model, with the spacing that its files state."""
    is_silent_when_empty: bool = False
    """Whether the released model encodes an empty negative prompt as zeros."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The published names of the text encoders."""
        return tuple(name for name in self.parts if name.startswith("text_encoder"))

    def parts_of(self, model: Chain) -> dict[str, tuple[Chain, KeyMap]]:
        """Returns each published part of a model of this family with its layout."""
        return {
            name: (model.layer(part.path, Chain), part.keys) for name, part in self.parts.items()
        }

    def size_of(self, unet: Mapping[str, Any], autoencoder: AutoencoderConfig) -> tuple[int, int]:
        """Returns the width and height in pixels for which a published UNet was trained.

        Args:
            unet: The published configuration of the UNet.
            autoencoder: The sizes of the autoencoder whose latents the UNet reads.

        Raises:
            ModelError: `sample_size` is neither a number nor a pair of numbers.
        """
        default = self.size // self.autoencoder.reduction
        height, width = Published(unet, "UNet2DConditionModel").sides("sample_size", default)
        return width * autoencoder.reduction, height * autoencoder.reduction
