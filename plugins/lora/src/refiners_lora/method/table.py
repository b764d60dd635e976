"""The methods that are read, and the choice of one by the roles of the weights of a layer."""

from collections.abc import Collection, Mapping
from typing import Final

from torch import Tensor

from refiners_core import Seat
from refiners_lora.method.change import Change, Tensors, changed_channels, operation
from refiners_lora.method.decomposed import MAGNITUDES, Decomposed, is_on_input
from refiners_lora.method.difference import Difference
from refiners_lora.method.embedding import EmbeddingRank
from refiners_lora.method.generalised import Generalised
from refiners_lora.method.hadamard import Hadamard
from refiners_lora.method.input_rotation import InputRotation
from refiners_lora.method.kronecker import Kronecker
from refiners_lora.method.low_rank import LowRank
from refiners_lora.method.replacement import Replacement, relative
from refiners_lora.method.rescaling import Rescaling
from refiners_lora.method.rotation import Butterfly, Rotation
from refiners_lora.method.token_rows import TokenRows

METHODS: Final[tuple[type[Change], ...]] = (
    LowRank,
    Hadamard,
    Kronecker,
    Generalised,
    Rotation,
    InputRotation,
    Rescaling,
    EmbeddingRank,
    TokenRows,
    Difference,
    Replacement,
)
"""The methods, by the roles of their weights; the first whose marks a layer has is its method."""
DECOMPOSED: Final = (LowRank, Hadamard, Kronecker)
"""The methods whose changes may have magnitudes beside them."""
OFFSET: Final = "diff_b"
"""The role of a change of the bias, which may stand beside the weights of any method."""


def method_of(roles: Collection[str]) -> type[Change] | None:
    """Returns the method to which weights of these roles belong; None if there is none."""
    return next((method for method in METHODS if method.marks & {*roles}), None)


def missing_role(method: type[Change], roles: Collection[str]) -> str:
    """Returns the first role that a method needs and a layer lacks; empty if it has all."""
    lacking = (either[0] for either in method.needs if not {*either} & {*roles})
    return next(lacking, "")


def odd_roles(method: type[Change], roles: Collection[str]) -> list[str]:
    """Returns the roles of weights that do not belong to a method, sorted."""
    known = method.marks | method.may | {OFFSET} | Replacement.marks
    if method in DECOMPOSED:
        known |= {*MAGNITUDES}
    return sorted({*roles} - known)


def title(method: type[Change], tensors: Tensors) -> str:
    """Returns the method of a layer in words, such as `a DoRA`."""
    if any(role in tensors for role in MAGNITUDES):
        return Decomposed.title
    if method is Rotation and "oft_blocks" in tensors and tensors["oft_blocks"].ndim == 4:
        return Butterfly.title
    return method.title


def build(method: type[Change], seat: Seat, tensors: Tensors, alpha: float | None) -> Change:
    """Builds the change of a layer.

    Args:
        method: The method.
        seat: The place of the layer.
        tensors: The weights by their roles, which fit the layer.
        alpha: The strength before division by the rank; None if the file does not give one.

    Raises:
        ValueError: The file stores another weight of the base layer than the layer has.
    """
    if method is not Replacement and Replacement.marks & {*tensors}:
        tensors = relative(tensors, seat)
    offset = None if method is Difference else tensors.get(OFFSET)
    extra = {*MAGNITUDES, *(() if offset is None else (OFFSET,))}
    weights = {role: tensor for role, tensor in tensors.items() if role not in extra}
    if method is Rotation and _is_butterfly(weights):
        method = Butterfly
    change = method.of(seat, weights, alpha)
    role = next((role for role in MAGNITUDES if role in tensors), None)
    if role is not None:
        whole = operation(seat)
        apply = operation(seat, changed_channels(method.sizes(weights)[0], whole.shape))
        on_input = is_on_input(tensors, apply.shape)
        change = Decomposed(change, apply, tensors[role], on_input=on_input, role=role)
    return change.with_offset(offset)


def _is_butterfly(weights: Mapping[str, Tensor]) -> bool:
    return "oft_blocks" in weights and weights["oft_blocks"].ndim == 4
