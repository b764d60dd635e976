"""The weights with which the change of a layer begins before training: they change nothing."""

import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from refiners_core import Seat
from refiners_lora.method.change import Change, operation
from refiners_lora.method.difference import Difference
from refiners_lora.method.hadamard import Hadamard
from refiners_lora.method.kronecker import Kronecker
from refiners_lora.method.low_rank import LowRank
from refiners_lora.method.rescaling import Rescaling
from refiners_lora.method.rotation import Rotation

Tensors = dict[str, Tensor]


class Method(NamedTuple):
    """A method of training."""

    change: type[Change]
    """The change that it trains."""
    begin: Callable[[tuple[int, ...], int], Tensors]
    """Returns the first weights for the shape of a layer's weight and a rank."""


def begun(method: str, seat: Seat, rank: int) -> tuple[type[Change], Tensors]:
    """Returns the change of a layer and its first weights, on torch's default device.

    Args:
        method: A name in `METHODS`.
        seat: The place of a linear layer or a convolution.
        rank: The rank, for methods that have one; the size of a block for `oft`.
    """
    kind, begin = METHODS[method]
    return kind, begin(operation(seat).shape, rank)


def _low_rank(shape: tuple[int, ...], rank: int) -> Tensors:
    down = torch.empty(rank, *shape[1:])
    nn.init.kaiming_uniform_(down, a=math.sqrt(5))  # as in the authors' released code
    return {"down": down, "up": torch.zeros(shape[0], rank, *(1 for _ in shape[2:]))}


def _decomposed(shape: tuple[int, ...], rank: int) -> Tensors:
    # The norms of the base replace these ones when training starts.
    return {**_low_rank(shape, rank), "dora_scale": torch.ones(shape[0], *(1 for _ in shape[1:]))}


def _hadamard(shape: tuple[int, ...], rank: int) -> Tensors:
    inputs = math.prod(shape[1:])
    return {  # the deviations of LyCORIS
        "hada_w1_a": torch.randn(shape[0], rank) * 0.1,
        "hada_w1_b": torch.randn(rank, inputs),
        "hada_w2_a": torch.zeros(shape[0], rank),
        "hada_w2_b": torch.randn(rank, inputs) * 0.1,
    }


def _kronecker(shape: tuple[int, ...], rank: int) -> Tensors:
    (a, b), (c, d) = _halves(shape[0]), _halves(shape[1])
    first = torch.empty(a, c)
    nn.init.kaiming_uniform_(first, a=math.sqrt(5))
    inputs = d * math.prod(shape[2:])
    if rank >= min(b, inputs) / 2:  # two factors would be larger than their product
        return {"lokr_w1": first, "lokr_w2": torch.zeros(b, d, *shape[2:])}
    inner = torch.empty(rank, inputs)
    nn.init.kaiming_uniform_(inner, a=math.sqrt(5))
    return {"lokr_w1": first, "lokr_w2_a": torch.zeros(b, rank), "lokr_w2_b": inner}


def _rotation(shape: tuple[int, ...], rank: int) -> Tensors:
    size = max(size for size in range(1, min(rank, shape[0]) + 1) if shape[0] % size == 0)
    return {"oft_blocks": torch.zeros(shape[0] // size, size, size)}


def _rescaling(shape: tuple[int, ...], rank: int) -> Tensors:
    factors = torch.zeros(shape[0], *(1 for _ in shape[1:]))
    return {"weight": factors, "on_input": torch.tensor(0)}


def _difference(shape: tuple[int, ...], rank: int) -> Tensors:
    return {"diff": torch.zeros(shape)}


def _halves(features: int) -> tuple[int, int]:
    """Returns the two factors of a number that are nearest to each other, the smaller one first."""
    small = next(n for n in range(math.isqrt(features), 0, -1) if features % n == 0)
    return small, features // small


RANKED: Final = (LowRank, Hadamard, Kronecker)
"""The changes whose strength is alpha divided by the rank."""
METHODS: Final[Mapping[str, Method]] = {
    "lora": Method(LowRank, _low_rank),
    "dora": Method(LowRank, _decomposed),
    "loha": Method(Hadamard, _hadamard),
    "lokr": Method(Kronecker, _kronecker),
    "oft": Method(Rotation, _rotation),
    "ia3": Method(Rescaling, _rescaling),
    "full": Method(Difference, _difference),
}
"""The methods by name: LoRA, DoRA, LoHa, LoKr, OFT, IA3, and whole differences."""
