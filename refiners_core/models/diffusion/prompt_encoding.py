"""The prompts of one generation, read by the text encoder."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from refiners_core.models.diffusion.components import DiffusionComponents
from refiners_core.models.diffusion.conditioning import (
    AdapterCondition,
    Conditioning,
    scales_of,
)
from refiners_core.models.diffusion.denoise import COND, UNCOND, branch_rows
from refiners_core.models.diffusion.finite import check_finite
from refiners_core.models.diffusion.request import GenerationRequest
from refiners_core.models.diffusion.strength import StepScales, read_by_picture
from refiners_core.surgery.plan import worn_at


def encoded_prompts(
    request: GenerationRequest,
    prompts: Mapping[str, Sequence[str]],
    conditions: Sequence[AdapterCondition],
) -> Conditioning:
    """Returns the features of the prompts, and the image sizes for a UNet that reads them.

    Args:
        request: The generation.
        prompts: For each branch, a text for all images, or one for each group of images.
        conditions: The adapters that act at some step, encoded.

    Raises:
        NotFiniteError: The text encoder returned infinite numbers or NaN.
    """
    model: DiffusionComponents = request.model
    branches = request.branches
    values = values_for_texts(model, conditions)
    # With values for each image, each image has a text, so that rows are those of the UNet.
    prompts = request.prompts if values else prompts
    texts = [(name, text) for name in branches for text in prompts[name]]
    is_silent = [
        model.is_silent_when_empty and name == UNCOND and text == "" for name, text in texts
    ]
    rows = {
        key: branch_rows(key, tensors, branches, request.count) for key, tensors in values.items()
    }

    def read(scales: StepScales) -> dict[str, dict[str, Tensor]]:
        features: dict[str, dict[str, Tensor]] = {}
        encoded = model.read(
            [text for _, text in texts],
            scales.context({"branches": branches}),
            rows=rows,
            is_silent=is_silent,
        )
        for key, value in encoded.items():
            check_finite(value, "text_encoder", model.text_encoder.dtype)
            value = value.to(request.device, request.dtype)
            parts = value.split([len(prompts[name]) for name in branches])
            repeats = [1 if len(part) == 1 else request.count // len(part) for part in parts]
            features[key] = {
                name: part.repeat_interleave(repeat, 0)
                for name, part, repeat in zip(branches, parts, repeats, strict=True)
            }
        return features

    described = model.describe(request).items()
    features = read_by_picture(read, scales_of(conditions, request), request.count)
    return {key: {COND: value} for key, value in described} | features


def values_for_texts(
    model: DiffusionComponents, conditions: Sequence[AdapterCondition]
) -> Conditioning:
    """Returns the tensors that adapters which edit the text encoder encoded their conditions to."""
    reading = worn_at(model, "text_encoder")
    return {
        key: tensors
        for item in conditions
        if any(item.adapter is adapter for adapter in reading)
        for key, tensors in item.conditioning.items()
    }


def for_each_image(texts: Sequence[str], count: int) -> tuple[str, ...]:
    """Returns the text of each image, from one for all images or one for each group of them."""
    return tuple([text for text in texts for _ in range(count // len(texts))])
