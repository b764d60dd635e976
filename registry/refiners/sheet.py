"""Lays pictures with titles out on one sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

if TYPE_CHECKING:
    from PIL import Image

Pictures: TypeAlias = "Mapping[str, Image.Image | Sequence[Image.Image]]"
"""Images, or lists of images that are shown below one another, by their titles."""

HEIGHT: Final = 192
"""The height in pixels that small pictures are enlarged to reach, by whole numbers."""
_GAP: Final = 12
_LINE: Final = 16
_WIDEST: Final = 1200


class _Column(NamedTuple):
    """The lines of a title, and the enlarged images below it."""

    title: list[str]
    images: list[Image.Image]
    width: int

    @property
    def height(self) -> int:
        return sum(image.height + _GAP for image in self.images)


def titled(value: Any) -> Pictures:
    """Returns the value of `pictures` as a mapping of titles to pictures.

    Args:
        value: A mapping of titles to images or lists of images, or a list of images, which get
            titles that are not shown.

    Raises:
        TypeError: The value is something else; the message names its type.
    """
    from PIL import Image

    if isinstance(value, Mapping):
        titles = {str(key): item for key, item in cast("Mapping[Any, Any]", value).items()}
    elif isinstance(value, list | tuple):
        titles = {" " * i: item for i, item in enumerate(cast("Sequence[Any]", value))}
    else:
        raise TypeError(f"a {type(value).__name__}")
    for item in titles.values():
        for image in cast("list[Any]", item if isinstance(item, list | tuple) else [item]):
            if not isinstance(image, Image.Image):
                raise TypeError(f"a {type(image).__name__}")
    return titles


def drawn_sheet(pictures: Pictures) -> Image.Image:
    """Returns one picture that shows all pictures in columns below their titles.

    Args:
        pictures: Images, or lists of images, by their titles.

    Returns:
        An RGB image; small pictures are enlarged by a whole number, and long rows are broken.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(13)
    rows: list[list[_Column]] = [[]]
    for title, value in pictures.items():
        images = [_enlarged(image) for image in (value if isinstance(value, Sequence) else [value])]
        width = max(image.width for image in images)
        if rows[-1] and sum(column.width for column in rows[-1]) + width > _WIDEST:
            rows.append([])
        rows[-1].append(_Column(_wrapped(title, width, font), images, width))
    titled_heights = [max(len(column.title) for column in row) * _LINE for row in rows]
    heights = [
        line + max(column.height for column in row)
        for line, row in zip(titled_heights, rows, strict=True)
    ]
    width = max(sum(column.width + _GAP for column in row) for row in rows)
    page = Image.new("RGB", (width + _GAP, sum(heights) + _GAP), "white")
    pen = ImageDraw.Draw(page)
    for row, line, top in zip(
        rows, titled_heights, accumulate(heights, initial=_GAP), strict=False
    ):
        for i, column in enumerate(row):
            left = _GAP + sum(before.width + _GAP for before in row[:i])
            pen.multiline_text((left, top), "\n".join(column.title), fill="black", font=font)
            below = top + line
            for image in column.images:
                page.paste(image, (left, below))
                below += image.height + _GAP
    return page


def _enlarged(image: Image.Image) -> Image.Image:
    factor = max(1, -(-HEIGHT // max(image.height, 1)))
    while factor > 1 and factor * image.width > _WIDEST:
        factor -= 1
    size = (factor * image.width, factor * image.height)
    return image.convert("RGB").resize(size, resample=0)


def _wrapped(title: str, width: int, font: Any) -> list[str]:
    """Breaks a title between words, so that its lines fit a width in pixels."""
    lines: list[str] = []
    for word in title.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines
