"""The regions of a condition: texts, masks and the adapters that act in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core import Adapter
from refiners_core.errors import ConditionError
from refiners_core.models.diffusion import GenerationRequest
from refiners_core.option import described, number
from refiners_regional.mask import region_mask

FIELDS: Final = ("prompt", "negative", "mask", "box", "weight", "conditions")
"""The names in the mapping of a region."""
EXAMPLE: Final = '[{"prompt": "a red heart", "box": (0, 0, 0.5, 1)}]'


@dataclass(frozen=True)
class Region:
    """A part of a picture that has a text of its own."""

    prompt: str
    """The text."""
    mask: Float[Tensor, "1 1 height width"]
    """The mask in the size of the picture, multiplied by the weight."""
    negative: str | None = None
    """The negative prompt; None for that of the generation."""
    scales: Mapping[str, float] = field(default_factory=dict[str, float])
    """The factors of the scales of adapters in the region, by their keys."""


def read_regions(
    value: Any, request: GenerationRequest, key: str, feather: float
) -> list[list[Region]]:
    """Returns the regions of each picture, or of all pictures as one list.

    Each picture has as many regions as the picture with the most; those that are missing have a
    mask of zeros.

    Args:
        value: A list of mappings, or a list of such lists with one for each picture.
        request: The generation.
        key: The key of the adapter, for messages.
        feather: The deviation of the blur of edges, as a share of the shorter side.

    Raises:
        ConditionError: The value does not describe regions, or not of as many pictures as there
            are.
    """
    is_list = isinstance(value, list | tuple) and len(value) > 0
    is_each = is_list and all(isinstance(item, list | tuple) for item in value)
    if not is_list or not (is_each or all(isinstance(item, Mapping) for item in value)):
        raise ConditionError(
            f"{key} takes a list of regions, not {described(value)}.",
            hint=f"Try conditions={{adapter: {EXAMPLE}}}.",
        )
    pictures: Sequence[Any] = value if is_each else [value]
    if is_each and len(pictures) != request.count:
        raise ConditionError(
            f"{key} is given the regions of {len(pictures)} pictures, but makes {request.count}.",
            hint="Pass a list for each picture, or one list of regions for all of them.",
        )
    size = request.height, request.width
    read = [
        [_region(item, size, request, f"region {i} of {key}", feather) for i, item in enumerate(p)]
        for p in pictures
    ]
    most = max(map(len, read))
    if most == 0:
        raise ConditionError(f"{key} is given no region.", hint=f"Try {EXAMPLE}.")
    none = torch.zeros(1, 1, *size, dtype=torch.float32, device="cpu")
    filler = read[0][:1] or [Region("", none)]
    return [[*p, *[Region(filler[0].prompt, none)] * (most - len(p))] for p in read]


def _region(
    item: Any, size: tuple[int, int], request: GenerationRequest, where: str, feather: float
) -> Region:
    if not isinstance(item, Mapping):
        raise ConditionError(
            f"{where} is a mapping, not {described(item)}.", hint=f"Try {EXAMPLE}."
        )
    if unknown := [str(name) for name in item if name not in FIELDS]:
        raise ConditionError(
            f"{where} takes {', '.join(FIELDS)}, not {', '.join(unknown)}.", hint=f"Try {EXAMPLE}."
        )
    texts = {name: item.get(name) for name in ("prompt", "negative")}
    if texts["prompt"] is None:
        raise ConditionError(f"{where} has no prompt.", hint=f"Try {EXAMPLE}.")
    for name, text in texts.items():
        if text is not None and not isinstance(text, str):
            raise ConditionError(
                f"the {name} of {where} is a text, not {described(text)}.", hint=f"Try {EXAMPLE}."
            )
    weight = number("weight", item.get("weight", 1.0), 1.0, low=0, of=where, error=ConditionError)
    mask = region_mask(item.get("mask"), item.get("box"), size, feather, where) * weight
    return Region(str(texts["prompt"]), mask, texts["negative"], _scales(item, request, where))


def _scales(item: Mapping[str, Any], request: GenerationRequest, where: str) -> dict[str, float]:
    given: Any = item.get("conditions") or {}
    worn = {id(adapter) for adapter in request.model.adapters}
    is_mapping = isinstance(given, Mapping)
    if not is_mapping or not all(isinstance(adapter, Adapter) for adapter in given):
        raise ConditionError(
            f"the conditions of {where} map adapters to scales, unlike {described(given)}.",
            hint='Try "conditions": {lora: 1.0} with what load_adapter returned.',
        )
    scales: dict[str, float] = {}
    for adapter, scale in given.items():
        if id(adapter) not in worn:
            raise ConditionError(
                f"{adapter.key} has a scale in {where}, but the model does not wear it.",
                hint="Put it on first: adapter.inject(model).",
            )
        scales[adapter.key] = number(
            "scale", scale, 1.0, of=f"{adapter.key} in {where}", error=ConditionError
        )
    return scales
