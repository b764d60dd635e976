"""The families of models that are supported, and how a published model names its own."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from refiners_core.errors import ModelError
from refiners_core.models.diffusion import Family
from refiners_core.models.sd15 import SD15
from refiners_core.models.sdxl import SDXL

FAMILIES: Final[dict[str, Family]] = {family.name: family for family in (SD15, SDXL)}
"""The supported families by name."""
SUPPORTED: Final = "Stable Diffusion 1.5 and XL are supported."
"""The hint of errors about other models."""
_SD2_TEXT_WIDTH: Final = 1024


def family_of_parts(place: str, parts: Collection[str], unet: Mapping[str, Any]) -> Family:
    """Returns the family of a model that is published part by part.

    Args:
        place: The model as it is named in messages.
        parts: The published names of its parts.
        unet: The published configuration of its UNet.

    Raises:
        ModelError: The model is Stable Diffusion 2.
    """
    if unet.get("cross_attention_dim") == _SD2_TEXT_WIDTH:
        raise ModelError(f"{place} is Stable Diffusion 2.", hint=SUPPORTED)
    complete = (family for family in FAMILIES.values() if {*family.texts} <= {*parts})
    return max(complete, key=lambda family: len(family.texts), default=FAMILIES["sd15"])
