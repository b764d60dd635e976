"""Regions and large pictures for Refiners: regional prompts, MultiDiffusion, upscaling."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refiners_regional.upscaler import upscale as upscale

__all__ = ["upscale"]


def __getattr__(name: str) -> Any:
    if name == "upscale":
        from refiners_regional.upscaler import upscale

        return upscale
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
