"""The checker of these tests refuses calls that contradict the types and shapes of a signature."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float
from shapes import jaxtyped
from torch import Tensor


@jaxtyped
def doubled(number: int) -> int:
    return 2 * number if number else "none"  # pyright: ignore[reportReturnType]


@jaxtyped
def product(
    a: Float[Tensor, "rows inner"], b: Float[Tensor, "inner columns"]
) -> Float[Tensor, "rows columns"]:
    return a @ b if a.any() else b


@jaxtyped
def nested(maps: list[Float[Tensor, "rows columns"]]) -> None: ...


@jaxtyped
def halves(number: "float | Unknown") -> Iterator[float]:
    yield number / 2


@jaxtyped
@dataclass
class Size:
    side: int

    @jaxtyped
    def grown(self, by: int) -> Self:
        return type(self)(self.side + by)


def test_a_call_as_stated_passes():
    assert doubled(2) == 4
    assert product(torch.ones(2, 3), torch.ones(3, 4)).shape == (2, 4)
    assert [*halves(3)] == [1.5]
    assert Size(1).grown(2) == Size(3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: doubled("2"),
        lambda: doubled(0),
        lambda: Size("1"),
        lambda: Size(1).grown("2"),
        lambda: product(torch.ones(2, 3), torch.ones(2, 3)),
        lambda: product(torch.ones(2, 3, dtype=torch.int), torch.ones(3, 4)),
        lambda: product(torch.zeros(2, 3), torch.ones(3, 4)),
        lambda: nested([torch.ones(2)]),
    ],
)
def test_a_call_that_contradicts_a_signature_is_refused(call):
    with pytest.raises(BeartypeCallHintViolation):
        call()
