"""The examples that adapters learn from: pictures with captions and conditions, by index."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Rows = Sequence[Any] | Tensor
"""A value for each example; bytes stand for 0...1."""
Caption = Callable[[int, Random], str]
"""Returns the caption of an index, by a source of randomness."""
CHUNK: Final = 1024
"""The pictures that are held as numbers at once."""


@dataclass(frozen=True)
class Example:
    """One example, with the fields that `refiners-train` reads of its own examples."""

    text: str
    """The caption."""
    picture: Float[Tensor, "3 size size"] | None = None
    """The picture in 0...1."""
    latents: Tensor | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The value of each input of the adapter; the name is empty for one unnamed input."""
    mask: Tensor | None = None
    original: tuple[int, int] | None = None
    corner: tuple[int, int] = (0, 0)
    is_prior: bool = False
    weight: float = 1.0


class Lesson:
    """A source of examples: pictures that are drawn once, with new captions in every epoch.

    It is a `Source` of `refiners-train`, of which the playground does not depend.

    Args:
        name: A text that tells the lesson and its numbers.
        pictures: The pictures as bytes.
        captions: Returns the caption of an index, by a source of randomness.
        conditions: The values of each input of the adapter, in the order of the pictures.
        groups: What the examples of one batch have in common, for each example; by default any
            examples may share a batch.
    """

    def __init__(
        self,
        name: str,
        pictures: UInt8[Tensor, "count 3 size size"],
        captions: Caption,
        conditions: Mapping[str, Rows] | None = None,
        groups: Sequence[str] | None = None,
    ) -> None:
        self.pictures: Final = pictures
        self.captions: Final = captions
        self.conditions: Final = dict(conditions or {})
        self.groups: Final = groups
        digest = hashlib.sha256(self.pictures.numpy().tobytes()).hexdigest()[:16]
        self.fingerprint: Final = f"{name}, {digest}"
        """A text that changes with the pictures."""

    def __len__(self) -> int:
        return len(self.pictures)

    def example(self, index: int, epoch: int) -> Example:
        """Returns an example; its caption depends on index and epoch.

        Args:
            index: The position.
            epoch: The number of the epoch from 0.
        """
        return Example(
            text=self.captions(index, Random(f"caption {epoch} {index}")),
            picture=_numbers(self.pictures[index]),
            conditions=self.values(index),
        )

    def values(self, index: int) -> dict[str, Any]:
        """Returns the value of each input for an example."""
        return {name: _numbers(rows[index]) for name, rows in self.conditions.items()}

    def group(self, index: int) -> str:
        """Returns what the examples of a batch have in common."""
        return "" if self.groups is None else self.groups[index]


def in_bytes(
    make: Callable[[Any], Float[Tensor, "rows *any"]], items: Sequence[Any] | Tensor
) -> UInt8[Tensor, "count *any"]:
    """Returns what a function makes of many items, in 0...1, as bytes on the CPU.

    They need a quarter of the memory of numbers.

    Args:
        make: Makes pictures in 0...1 of some items: of a list, or of pictures in 0...1.
        items: The items: a list, or pictures as bytes.
    """
    parts: list[Tensor] = []
    with torch.device(drawing_device()):
        for start in range(0, len(items), CHUNK):
            part = items[start : start + CHUNK]
            made = make(as_float(part) if isinstance(part, Tensor) else part)
            parts.append((made * 255).round().clamp(0, 255).to("cpu", torch.uint8))
    return torch.cat(parts)


def drawing_device() -> torch.device:
    """Returns the device on which a lesson is drawn: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def as_float(pixels: UInt8[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Returns bytes as numbers in 0...1, on torch's default device."""
    return pixels.to(torch.get_default_device()).float() / 255


def _numbers(value: Any) -> Any:
    is_bytes = isinstance(value, Tensor) and value.dtype == torch.uint8
    return value.float() / 255 if is_bytes else value
