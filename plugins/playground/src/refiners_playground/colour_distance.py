"""The perceived distance of colours: CIEDE2000 (Sharma, Wu and Dalal 2005)."""

import math
from collections.abc import Sequence
from itertools import permutations

Lab = tuple[float, float, float]

_WHITE = (0.95047, 1.0, 1.08883)
"""Illuminant D65, for the observer at 2 degrees."""
_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)


def to_lab(colour: str) -> Lab:
    """Converts `#rrggbb`, in sRGB, to CIELAB."""
    levels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in levels]
    xyz = [sum(a * b for a, b in zip(row, linear, strict=True)) for row in _TO_XYZ]
    x, y, z = (_response(value / white) for value, white in zip(xyz, _WHITE, strict=True))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _response(t: float) -> float:
    return t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29


def ciede2000(first: Lab, second: Lab) -> float:
    """Returns the distance of two colours; about 1 is just noticeable, 100 that of black and white.

    Equations 2 to 22 of Sharma, Wu and Dalal 2005, with all three weights 1.
    """
    (l1, a1, b1), (l2, a2, b2) = first, second
    mean = (math.hypot(a1, b1) + math.hypot(a2, b2)) / 2
    g = 0.5 * (1 - math.sqrt(mean**7 / (mean**7 + 25**7)))
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = math.hypot(a1, b1), math.hypot(a2, b2)
    h1, h2 = (math.degrees(math.atan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = 0.0 if not c1 * c2 else (h2 - h1 + 180) % 360 - 180
    if turn == -180:
        turn = 180.0 if h2 > h1 else -180.0
    dl, dc = l2 - l1, c2 - c1
    dh = 2 * math.sqrt(c1 * c2) * math.sin(math.radians(turn / 2))
    lightness, c = (l1 + l2) / 2, (c1 + c2) / 2
    h = h1 + h2 if not c1 * c2 else _middle(h1, h2)
    t = (
        1
        - 0.17 * math.cos(math.radians(h - 30))
        + 0.24 * math.cos(math.radians(2 * h))
        + 0.32 * math.cos(math.radians(3 * h + 6))
        - 0.20 * math.cos(math.radians(4 * h - 63))
    )
    distant = (lightness - 50) ** 2
    sl = 1 + 0.015 * distant / math.sqrt(20 + distant)
    sc, sh = 1 + 0.045 * c, 1 + 0.015 * c * t
    theta = 30 * math.exp(-(((h - 275) / 25) ** 2))
    rt = -2 * math.sqrt(c**7 / (c**7 + 25**7)) * math.sin(math.radians(2 * theta))
    x, y, z = dl / sl, dc / sc, dh / sh
    return math.sqrt(x * x + y * y + z * z + rt * y * z)


def _middle(h1: float, h2: float) -> float:
    """Returns the hue between two, in degrees."""
    total = h1 + h2
    if abs(h1 - h2) <= 180:
        return total / 2
    return (total + 360) / 2 if total < 360 else (total - 360) / 2


def palette_distance(requested: Sequence[str], drawn: Sequence[str]) -> float:
    """Returns the mean distance of requested colours and those drawn, in the best pairing.

    Args:
        requested: Colours as `#rrggbb`.
        drawn: As many colours or fewer; the nearest stands for one that is missing.
    """
    rows = [[ciede2000(to_lab(a), to_lab(b)) for b in drawn] for a in requested]
    if len(drawn) < len(requested):
        return sum(map(min, rows)) / len(rows)
    pairings = permutations(range(len(drawn)), len(requested))
    return min(sum(row[i] for row, i in zip(rows, p, strict=True)) for p in pairings) / len(rows)
