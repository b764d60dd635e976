"""The numbers that CLIP's encoders are built from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from refiners_core.errors import ModelError
from refiners_core.models.published import Published


@dataclass(frozen=True)
class ClipTextConfig:
    """A text encoder's sizes; the defaults are those of ViT-L/14, as in Stable Diffusion 1.5."""

    vocabulary: int = 49408
    max_tokens: int = 77
    width: int = 768
    inner_width: int = 3072
    layers: int = 12
    heads: int = 12
    activation: str = "quick_gelu"
    eps: float = 1e-5
    end_token: int = 49407
    projection_width: int | None = None
    """Features of the pooled text, where it is projected; None where there is no pooled text."""

    def __post_init__(self) -> None:
        _check(self.activation, self.layers)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads a published `config.json` of a CLIP text encoder, or of a whole CLIP.

        Raises:
            ModelError: It asks for something that this encoder does not have.
        """
        read = Published(data.get("text_config") or data, "CLIPTextModel")
        is_projected = "CLIPTextModelWithProjection" in (data.get("architectures") or ())
        return cls(
            vocabulary=read.value("vocab_size", 49408),
            max_tokens=read.value("max_position_embeddings", 77),
            width=read.value("hidden_size", 512),
            inner_width=read.value("intermediate_size", 2048),
            layers=read.value("num_hidden_layers", 12),
            heads=read.value("num_attention_heads", 8),
            activation=read.value("hidden_act", "quick_gelu"),
            eps=read.value("layer_norm_eps", 1e-5),
            end_token=read.value("eos_token_id", 49407),
            projection_width=read.value("projection_dim", 512) if is_projected else None,
        )


@dataclass(frozen=True)
class ClipImageConfig:
    """An image encoder's sizes; the defaults are those of ViT-H/14, as in IP-Adapter."""

    image_size: int = 224
    """Height and width of a picture in pixels."""
    patch_size: int = 14
    pixel_channels: int = 3
    width: int = 1280
    inner_width: int = 5120
    layers: int = 32
    heads: int = 16
    activation: str = "gelu"
    eps: float = 1e-5
    projection_width: int | None = 1024
    """Features of a picture; None where the encoder ends before the projection."""

    def __post_init__(self) -> None:
        _check(self.activation, self.layers)

    @property
    def patches(self) -> int:
        """How many patches a picture is cut into."""
        return (self.image_size // self.patch_size) ** 2

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads a published `config.json` of a CLIP image encoder, or of a whole CLIP.

        Raises:
            ModelError: It asks for something that this encoder does not have.
        """
        read = Published(data.get("vision_config") or data, "CLIPVisionModelWithProjection")
        is_projected = "CLIPVisionModel" not in (data.get("architectures") or ())
        return cls(
            image_size=read.value("image_size", 224),
            patch_size=read.value("patch_size", 32),
            pixel_channels=read.value("num_channels", 3),
            width=read.value("hidden_size", 768),
            inner_width=read.value("intermediate_size", 3072),
            layers=read.value("num_hidden_layers", 12),
            heads=read.value("num_attention_heads", 12),
            activation=read.value("hidden_act", "quick_gelu"),
            eps=read.value("layer_norm_eps", 1e-5),
            projection_width=read.value("projection_dim", 512) if is_projected else None,
        )


def _check(activation: str, layers: int) -> None:
    if activation not in ("quick_gelu", "gelu"):
        raise ModelError(
            f"CLIP has no activation named {activation!r}.", hint="There are quick_gelu and gelu."
        )
    if layers < 1:
        raise ModelError(f"CLIP with {layers} layers encodes nothing.", hint="Try layers=1.")
