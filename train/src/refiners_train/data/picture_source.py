"""Records as examples: framed, with masks and conditions framed alike."""

from collections.abc import Hashable
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

from torch import Tensor

from refiners_train.data.bucket import Buckets
from refiners_train.data.chance import chance
from refiners_train.data.data_error import DataError
from refiners_train.data.example import Example
from refiners_train.data.fingerprint import fingerprint_of
from refiners_train.data.framing import Frame, Framing
from refiners_train.data.record import File, Record, Records, mask_of, pixels_of, size_of, value_of


class PictureSource:
    """Examples from records, all of one size or of the size of their bucket.

    Args:
        records: The pictures.
        size: Height and width of every example, or the buckets that sizes are taken from.
        framing: How pictures are flipped and cropped.
        seed: The seed of flips and random crops.
    """

    def __init__(
        self,
        records: Records,
        size: tuple[int, int] | Buckets,
        framing: Framing | None = None,
        seed: int = 0,
    ) -> None:
        self.records: Final = records
        self.size: Final = size
        self.framing: Final = framing or Framing()
        self.seed: Final = seed

    @property
    def fingerprint(self) -> str:
        """Changes with the records, the size and the framing."""
        return fingerprint_of(
            [self.records.fingerprint, repr(self.size), repr(self.framing), self.seed]
        )

    def __len__(self) -> int:
        return len(self.records)

    def group(self, index: int) -> Hashable:
        """Returns height and width of an example."""
        return self.size if isinstance(self.size, tuple) else self._sizes[index]

    def example(self, index: int, epoch: int) -> Example:
        """Returns an example, flipped and cropped as index, epoch and seed choose."""
        record = self.records.record(index)
        pixels = pixels_of(record.name, record.picture)
        example, frame = self._around(record, tuple(pixels.shape[-2:]), index, epoch)
        return replace(
            example,
            picture=frame.picture(pixels),
            conditions={
                name: self._condition(record, value, pixels, frame)
                for name, value in record.conditions.items()
            },
        )

    def without_picture(self, index: int, epoch: int) -> Example:
        """Returns an example without its picture, which need not be decoded."""
        record = self.records.record(index)
        example, frame = self._around(record, self._original(record), index, epoch)
        return replace(
            example,
            conditions={
                name: self._condition(record, value, None, frame)
                for name, value in record.conditions.items()
            },
        )

    def frame(self, index: int, epoch: int) -> Frame:
        """Returns the frame of an example; reads the header of its picture alone."""
        record = self.records.record(index)
        return self._frame(self._original(record), index, epoch)

    def _around(
        self, record: Record, original: Any, index: int, epoch: int
    ) -> tuple[Example, Frame]:
        frame = self._frame(original, index, epoch)
        mask = None if record.mask is None else frame.mask(mask_of(record.name, record.mask))
        return (
            Example(record.text, mask=mask, original=frame.original, corner=frame.corner),
            frame,
        )

    def _frame(self, original: tuple[int, int], index: int, epoch: int) -> Frame:
        size = self.size if isinstance(self.size, tuple) else self._sizes[index]
        return self.framing.frame(original, size, chance("frame", self.seed, epoch, index))

    def _condition(self, record: Record, value: Any, pixels: Tensor | None, frame: Frame) -> Tensor:
        numbers = value_of(record.name, value)
        if numbers is not None:
            return numbers
        if pixels is None or value is not record.picture:
            pixels = pixels_of(f"a condition of {record.name}", value)
        return frame.picture(pixels)

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        assert isinstance(self.size, Buckets)
        records = (self.records.record(index) for index in range(len(self)))
        return [self.size.size(self._original(record)) for record in records]

    def _original(self, record: Record) -> tuple[int, int]:
        return original_size(record.name, record.picture)


def original_size(name: str, picture: File) -> tuple[int, int]:
    """Returns height and width of a picture.

    Raises:
        DataError: The picture cannot be read.
    """
    try:
        return size_of(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{name} cannot be read: {error}.", hint="Replace it, or take it out."
        ) from error
