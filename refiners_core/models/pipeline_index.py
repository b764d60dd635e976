"""What a pipeline of diffusers says of itself, in its `model_index.json` and while it lives."""

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
    # They look at pictures, or mark them, after they were made.
    idle="safety_checker feature_extractor requires_safety_checker add_watermarker name_or_path",
)
"""The table of pipelines: their parts and their settings."""
BESIDE: Final = ("controlnet", "adapter", "image_encoder")
"""Parts that steer a model and are not of it: here they are adapters."""


def check_index(data: Mapping[str, Any], kind: str) -> None:
    """Makes sure that what a pipeline consists of is known here.

    Args:
        data: The content of its index; a part that it lacks is null, or a pair of nulls.
        kind: The class of the pipeline.

    Raises:
        ModelError: It has a part or a setting that is not known.

    Warns:
        Notice: A part that steers it stays behind.
    """
    parts = {key: value for key, value in data.items() if not _is_absent(value)}
    Published(parts | {"_class_name": kind}, kind, table=INDEX, file="model_index.json")
    for name in BESIDE:
        if name in parts and name != "image_encoder":
            warnings.warn(
                f"the {name} of this {kind} is not part of the model; load it as an adapter: "
                "load_adapter(..., model).",
                Notice,
                stacklevel=3,
            )


def padding_of(first: ClipTokenizer, second: ClipTokenizer | None) -> int:
    """Returns what the second text encoder reads after the end of a text.

    Args:
        first: The tokenizer that reads texts for both encoders.
        second: The one published for the second; None where there is none.

    Raises:
        ModelError: The two differ in more than their padding.
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
    return bool(pair) and all(it is None for it in pair)
