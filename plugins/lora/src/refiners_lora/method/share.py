"""The weights for one of several layers that are published as one, as GPT-2's queries are."""

from collections.abc import Mapping

from torch import Tensor

from refiners_core.weights import Transform, stacked

_BY_OUTPUT = frozenset(
    {"up", "up_bias", "magnitude", "hada_w1_a", "hada_w2_a", "rescale", "diff_b"}
)
"""The roles of weights that have a row for each output."""
_BY_INPUT = frozenset({"down", "hada_w1_b", "hada_w2_b", "input_rotation"})
"""The roles of weights that are the same for all shares."""
_PUBLISHED = frozenset({"whole", "whole_bias"})
"""The roles of tensors in the form of the published layer."""


def shared(tensors: Mapping[str, Tensor], transform: Transform) -> dict[str, Tensor]:
    """Returns the weights of a published layer for one of the layers that it is here.

    Args:
        tensors: The weights by their roles.
        transform: The share, and the conversion from the published tensor.

    Raises:
        ValueError: The weights cannot be divided.
    """
    rows = stacked(transform.share, transform.shares, sizes=transform.sizes)
    result: dict[str, Tensor] = {}
    for role, tensor in tensors.items():
        part: Tensor | None = tensor
        if role in _PUBLISHED:
            part = transform.part(tensor)
            part = None if part is None else transform.read(part)
        elif transform.shares > 1:
            is_for_outputs = role in _BY_OUTPUT or (role == "ia3_l" and len(tensor) > 1)
            if not is_for_outputs and role not in _BY_INPUT and role != "ia3_l":
                raise ValueError(f"have a `{role}`, which cannot be divided")
            part = rows.part(tensor) if is_for_outputs else tensor
        if part is None:
            raise ValueError(
                f"have a `{role}` of {[*tensor.shape]}, which is not for {transform.shares} layers"
            )
        result[role] = part
    return result
