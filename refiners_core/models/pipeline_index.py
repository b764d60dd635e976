"""The parts and settings of a pipeline of diffusers: its `model_index.json` or its `config`."""

import warnings
from collections.abc import Mapping
from typing import Any, Final

from refiners_core.errors import ModelError, Notice
from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.config_reader import Format, Published

INDEX: Final = Format.of(
    followed=(
        "unet vae text_encoder text_encoder_2 tokenizer tokenizer_2 scheduler "
        "force_zeros_for_empty_prompt controlnet adapter image_encoder"
    ),
    fixed={"requires_aesthetics_score": (False,)},
    # These check or mark images after they are generated.
    idle="safety_checker feature_extractor requires_safety_checker add_watermarker name_or_path",
)
"""The keys of pipelines: their parts and their settings."""
ADAPTER_PARTS: Final = ("controlnet", "adapter", "image_encoder")
"""Parts that are adapters, and not of the model."""


def check_index(data: Mapping[str, Any], kind: str) -> None:
    """Checks that the parts and settings of a pipeline are supported.

    Args:
        data: The content of its index; an absent part is null, or a pair of nulls.
        kind: The class of the pipeline.

    Raises:
        ModelError: The pipeline has an unknown part or an unsupported setting.

    Warns:
        Notice: The pipeline has a part that must be loaded as an adapter.
    """
    parts = {key: value for key, value in data.items() if not _is_absent(value)}
    Published(parts | {"_class_name": kind}, kind, table=INDEX, file="model_index.json")
    for name in ADAPTER_PARTS:
        if name in parts and name != "image_encoder":
            warnings.warn(
                f"the {name} of this {kind} is not part of the model; load it as an adapter: "
                "load_adapter(..., model).",
                Notice,
                stacklevel=3,
            )


def padding_of(first: ClipTokenizer, second: ClipTokenizer | None) -> int:
    """Returns the token with which the second text encoder pads texts.

    Args:
        first: The tokenizer of both encoders.
        second: The tokenizer that is published for the second encoder, or None.

    Raises:
        ModelError: The tokenizers differ in more than their padding.
    """
    if second is None:
        return 0
    if not first.reads_like(second):
        raise ModelError(
            "the two tokenizers of this model read texts differently.",
            hint="Take both from one release of Stable Diffusion XL.",
        )
    return second.padding


def _is_absent(value: Any) -> bool:
    pair = list(value) if isinstance(value, list | tuple) else [value]
    return bool(pair) and all(item is None for item in pair)
