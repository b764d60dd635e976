"""The pictures of one condition: those of each generated picture, negative ones, masks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.diffusion import GenerationRequest
from refiners_core.picture import to_mask, to_rows

Blend = Literal["join", "average"]
"""How several pictures act on one: by the tokens of all, or by the mean of their features."""
Rows = Sequence[Sequence[Any]]
"""The pictures of each generated picture; one row serves all."""


@dataclass(frozen=True)
class Prompt:
    """The pictures that a condition shows to the branches of a generation."""

    rows: Rows
    """For each generated picture, its pictures: tensors of pixels or of numbers."""
    negative: Rows
    """The same for the branch of the negative prompt; None where it is shown nothing."""
    masks: Float[Tensor, "pictures 1 height width"] | None = None
    """The part of the generated picture in which each picture acts."""


def picture_rows(value: Any, name: str) -> Rows:
    """Returns the pixels of pictures: a picture, one per generated picture, or several for each.

    Raises:
        ConditionError: A value is not a picture.
    """
    if isinstance(value, list | tuple) and any(isinstance(item, list | tuple) for item in value):
        return [to_rows(item) for item in value]
    return [[pixels] for pixels in to_rows(value)]


def prompt_of(
    value: Any,
    request: GenerationRequest,
    adapter: str,
    names: Sequence[str],
    read: Callable[[Any, str], Rows],
) -> Prompt:
    """Reads the value of a condition.

    Args:
        value: The first input alone, or a mapping of inputs.
        request: The generation.
        adapter: The name of the adapter, for messages.
        names: The names of the inputs, of which the first is required.
        read: Returns the rows of the value of an input, by its name.

    Raises:
        ConditionError: An input is missing, unknown or malformed, or there are too many or too few.
    """
    inputs: Mapping[Any, Any] = value if isinstance(value, Mapping) else {names[0]: value}
    unknown = [str(name) for name in inputs if name not in names]
    if unknown or names[0] not in inputs:
        given = ", ".join(map(str, inputs)) or "nothing"
        raise ConditionError(
            f"{adapter} takes {', '.join(names)}, not {', '.join(unknown)}."
            if unknown
            else f"{adapter} needs {names[0]}; it is given {given}.",
            hint=f'Pass conditions={{adapter: {{"{names[0]}": ...}}}}.',
        )
    rows = read(inputs[names[0]], names[0])
    pictures = _count(rows, names[0], request, adapter)
    negative: Rows = [[None]]
    if inputs.get("negative") is not None:
        negative = read(inputs["negative"], "negative")
        shown = _count(negative, "negative", request, adapter)
        if shown not in (1, pictures):
            raise ConditionError(
                f"{adapter} is given {shown} values as negative beside {pictures} as {names[0]}.",
                hint="Pass one, or as many.",
            )
    masks = None
    if inputs.get("masks") is not None:
        masks = to_mask(inputs["masks"], (request.height, request.width))
        if len(masks) != pictures:
            raise ConditionError(
                f"{adapter} is given {len(masks)} masks, and {pictures} as {names[0]}.",
                hint="Pass a mask for each: "
                f'{{"{names[0]}": [[first, second]], "masks": [left, right]}}.',
            )
    return Prompt(rows, negative, masks)


def check_blend(blend: Any, adapter: str) -> None:
    """Checks the name of a way to blend pictures.

    Raises:
        AdapterError: The name is not known.
    """
    if blend not in get_args(Blend):
        raise AdapterError(
            f"the blend of {adapter} is {' or '.join(get_args(Blend))}, not {blend!r}.",
            hint='Try blend="join".',
        )


def _count(rows: Rows, name: str, request: GenerationRequest, adapter: str) -> int:
    """Returns the number of pictures for each generated picture."""
    if len(rows) not in (1, request.count):
        raise ConditionError(
            f"{adapter} is given {len(rows)} values as {name} for {request.count} "
            f"picture{'s' * (request.count > 1)}.",
            hint="Pass one for all pictures or one for each; [[first, second]] shows both to every "
            "picture.",
        )
    counts = sorted({len(row) for row in rows})
    if len(counts) > 1 or 0 in counts:
        raise ConditionError(
            f"{adapter} is given lists of {' and '.join(map(str, counts))} as {name}.",
            hint="Give every generated picture equally many; repeat some if need be.",
        )
    return counts[0]
