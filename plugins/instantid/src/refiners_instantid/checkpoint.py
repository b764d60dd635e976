"""The published file of InstantID's image prompt: its keys and sizes.

InstantID is published as two files: an IP-Adapter Plus for faces, and a ControlNet.
"""

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.models.face import FACE_WIDTH
from refiners_core.models.image_prompt import (
    IMAGE_ATTENTION_KEYS,
    RESAMPLER_KEYS,
    ResamplerConfig,
)

INSTANTID_KEYS: Final = RESAMPLER_KEYS.under(
    "projection", "image_proj"
) | IMAGE_ATTENTION_KEYS.under("branches", "ip_adapter")


def resampler_config(
    tensors: Mapping[str, Tensor], text_width: int, face_width: int = FACE_WIDTH
) -> ResamplerConfig:
    """Returns the sizes of the resampler, read off published shapes.

    Args:
        tensors: Published tensors.
        text_width: Features of a text token of the model.
        face_width: The numbers of an embedding of a face.

    Raises:
        WeightsError: The tensors are not those of an InstantID for such a model.
    """
    config = ResamplerConfig.from_tensors(tensors)
    if config.features != face_width:
        raise WeightsError(
            f"this file reads {config.features} features of a picture, InstantID the {face_width} "
            "numbers of a face.",
            hint="Give the ip-adapter.bin of InstantX/InstantID, rewritten as safetensors.",
        )
    if config.out_width != text_width:
        raise WeightsError(
            f"this file makes tokens of {config.out_width} features; this model's text tokens "
            f"have {text_width}.",
            hint='InstantID is for SDXL: load_model("sdxl").',
        )
    return config
