"""Palettes: a few colours, each with its share of a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NoReturn, Self, cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageColor
from torch import Tensor

from refiners_core.errors import ConditionError
from refiners_core.picture import to_pixels

MOST: Final = 8
"""The largest number of colours in a palette."""
_SIDE: Final = 128
"""The sides in pixels to which a picture is shrunk before its colours are counted."""
_HINT: Final = 'Try ["#c1121f", "white"], or with weights [("#c1121f", 1), ("white", 3)].'


class Palette(tuple[tuple[str, float], ...]):
    """Colours as `#rrggbb`, each with its share of the picture; the shares add up to 1.

    The heaviest colour comes first; the order in which colours are given does not matter.

    Args:
        colours: Each an `#rrggbb` or a name of CSS, three whole numbers in 0...255, or a pair of
            such a colour and its weight. Colours without a weight weigh 1; the weights of equal
            colours are added up.

    Raises:
        ConditionError: The list is empty or too long, a colour is unknown, or a weight is not a
            positive number.

    Example:
        >>> Palette([("red", 1), ("#ffffff", 3)])
        Palette(('#ffffff', 0.75), ('#ff0000', 0.25))
    """

    __slots__ = ()

    def __new__(cls, colours: Sequence[Any]) -> Self:
        if isinstance(colours, cls):
            return colours
        if not isinstance(colours, list | tuple) or not colours:
            _refuse(f"a palette is a list of colours, not {colours!r}")
        if len(colours) > MOST:
            _refuse(f"a palette has at most {MOST} colours, not {len(colours)}")
        weights: dict[str, float] = {}
        for colour, weight in map(_pair, colours):
            weights[colour] = weights.get(colour, 0.0) + weight
        total = sum(weights.values())
        shares = [(name, weight / total) for name, weight in weights.items()]
        return super().__new__(cls, sorted(shares, key=lambda pair: (-pair[1], pair[0])))

    @classmethod
    def of(cls, picture: Any, colours: int = 4) -> Self:
        """Returns the main colours of a picture, by median cut and then k-means.

        Args:
            picture: A PIL image, or a float tensor (3, height, width) in 0...1.
            colours: The largest number of colours, at most 8; a picture may have fewer.

        Raises:
            ConditionError: The value is not one picture, or the number is out of range.
        """
        if not isinstance(colours, int) or not 1 <= colours <= MOST:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConditionError(
                f"a palette has 1 to {MOST} colours, not {colours!r}.",
                hint="Try Palette.of(picture, 4).",
            )
        rows = to_pixels(picture)
        if len(rows) != 1:
            raise ConditionError(
                f"a palette is made of one picture, not of {len(rows)}.",
                hint="Pass a list: [Palette.of(picture) for picture in pictures].",
            )
        levels = (rows[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        image = Image.fromarray(np.ascontiguousarray(levels))
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
        cut = image.quantize(colours, Image.Quantize.MEDIANCUT, kmeans=1)
        flat = cut.getpalette() or []
        counts = cast("list[tuple[int, int]]", cut.getcolors() or [])
        totals: dict[tuple[int, ...], int] = {}
        for count, index in counts:
            colour = tuple(flat[3 * index : 3 * index + 3])
            totals[colour] = totals.get(colour, 0) + count
        return cls([*totals.items()])

    def numbers(self) -> Float[Tensor, "colours 4"]:
        """Returns a row for each of 8 colours: red, green, blue and the share, in 0...1.

        Rows without a colour are zeros.
        """
        rows = torch.zeros(MOST, 4)
        for i, (name, share) in enumerate(self):
            rows[i] = torch.tensor([*(level / 255 for level in _levels(name)), share])
        return rows

    def __repr__(self) -> str:
        return f"Palette({', '.join(repr((name, round(share, 4))) for name, share in self)})"

    def __getnewargs__(self) -> tuple[list[tuple[str, float]]]:
        return ([*self],)


def read_palettes(value: Any) -> list[Palette]:
    """Returns the palette in a condition, or one per generated picture.

    Args:
        value: A palette or its colours; a picture, of which the four main colours are taken; or a
            list of these.

    Raises:
        ConditionError: The value is none of these.
    """
    if isinstance(value, Palette):
        return [value]
    if isinstance(value, Tensor) and value.ndim == 4:
        return [Palette.of(picture) for picture in value]
    if not isinstance(value, list | tuple):
        if isinstance(value, Image.Image | Tensor | np.ndarray):
            return [Palette.of(value)]
        _refuse(f"a palette is a list of colours, or a picture, not {value!r}")
    items = cast("list[Any] | tuple[Any, ...]", value)
    if not items or any(_is_colour(item) or _is_weighted(item) for item in items):
        return [Palette(items)]
    return [palette for item in items for palette in read_palettes(item)]


def _pair(entry: Any) -> tuple[str, float]:
    """Returns a colour as `#rrggbb`, and its weight."""
    colour, weight = entry if _is_weighted(entry) else (entry, 1.0)
    if not _is_colour(colour):
        _refuse(f"{colour!r} is not a colour")
    if not math.isfinite(weight) or weight <= 0:
        _refuse(f"the weight of {colour!r} is a positive number, not {weight!r}")
    return "#{:02x}{:02x}{:02x}".format(*_levels(colour)), float(weight)


def _levels(colour: Any) -> tuple[int, int, int]:
    """Returns red, green and blue in 0...255."""
    if isinstance(colour, str):
        try:
            red, green, blue = ImageColor.getrgb(colour)[:3]
        except ValueError:
            _refuse(f"{colour!r} is not a colour")
        return red, green, blue
    if any(not 0 <= level <= 255 for level in colour):
        _refuse(f"{colour!r} is not a colour: red, green and blue are in 0...255")
    red, green, blue = (int(level) for level in colour)
    return red, green, blue


def _is_colour(value: Any) -> bool:
    if isinstance(value, str):
        return True
    is_triple = isinstance(value, list | tuple) and len(cast("list[Any]", value)) == 3
    return is_triple and all(isinstance(level, int) for level in cast("list[Any]", value))


def _is_weighted(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(cast("list[Any]", value)) != 2:
        return False
    colour, weight = cast("list[Any]", value)
    return _is_colour(colour) and isinstance(weight, int | float)


def _refuse(problem: str) -> NoReturn:
    raise ConditionError(f"{problem}.", hint=_HINT)
