"""Image prompts of every kind in small sizes, with the same random weights each time."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from refiners_ipadapter.adapter import IpAdapter, IpAdapterDino, IpAdapterFull, IpAdapterPlus
from refiners_ipadapter.face_id import FaceId, FaceIdPortrait, FaceIdUnnormed
from refiners_ipadapter.face_plus import FaceIdPlus
from refiners_ipadapter.image_prompt import ImagePrompt

from refiners_core.models.clip import ClipImageConfig
from refiners_core.models.dino import DinoConfig
from refiners_core.models.image_prompt import ResamplerConfig

ENCODER: Final = ClipImageConfig(
    image_size=16, patch_size=8, width=8, inner_width=8, layers=2, heads=2, projection_width=8
)
DINO: Final = DinoConfig(
    image_size=16, input_size=16, patch_size=8, width=8, inner_width=8, layers=1, heads=2
)
SIZES: Final[Mapping[str, Any]] = {"width": 64, "heads": 1, "depth": 1, "inner": 16, "tokens": 3}
RESAMPLER: Final = ResamplerConfig(features=8, out_width=8, **SIZES)
FACES: Final = ResamplerConfig(out_width=8, **SIZES)
PICTURE: Final = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(1))
FACE: Final = torch.randn(512, generator=torch.Generator().manual_seed(2))


def sized(make: Callable[..., ImagePrompt], **sizes: Any) -> Callable[..., ImagePrompt]:
    """Returns a maker of adapters that begin with the same weights each time."""

    def seeded(**options: Any) -> ImagePrompt:
        torch.manual_seed(3)
        return make(**sizes, **options)

    return seeded


KINDS: Final[Mapping[str, Callable[..., ImagePrompt]]] = {
    "linear": sized(IpAdapter, encoder=ENCODER),
    "plus": sized(IpAdapterPlus, encoder=ENCODER, resampler=RESAMPLER),
    "full": sized(IpAdapterFull, encoder=ENCODER),
    "dinov2": sized(IpAdapterDino, encoder=DINO, resampler=RESAMPLER),
    "faceid": sized(FaceId, rank=2),
    "faceid-plus": sized(FaceIdPlus, encoder=ENCODER, rank=2),
    "faceid-plusv2": sized(FaceIdPlus, encoder=ENCODER, rank=2, shortcut=True),
    "portrait": sized(FaceIdPortrait, tokens=3),
    "unnormed": sized(FaceIdUnnormed, resampler=FACES),
}


def shown(kind: str) -> Any:
    """Returns a condition for a kind."""
    if kind.startswith("faceid-plus"):
        return {"face": FACE, "picture": PICTURE}
    return FACE if kind in ("faceid", "portrait", "unnormed") else PICTURE


def bits(latents: torch.Tensor) -> bytes:
    """Returns the bits of a tensor, which compare and hash by value."""
    return latents.numpy().tobytes()
