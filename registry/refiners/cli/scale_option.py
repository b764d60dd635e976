"""Parses the scale of `--adapter`: a number, numbers by place, or a schedule.

    0.8    unet.up.0=1+unet.mid=0.4    1@0+0.2@0.5

Places and points are joined by plus signs; a place with a dot may also follow a comma. A point is a
scale and the share of the steps at which it holds, with straight lines between points. The model
determines which places there are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import click

_NUMBER: Final = r"-?(?:\d+\.?\d*|\.\d+)(?:e-?\d+)?"
_PLACE: Final = rf"[a-z_]\w*(?:\.\w+)*={_NUMBER}"
_POINT: Final = rf"{_NUMBER}@{_NUMBER}"
_DOTTED: Final = rf"[a-z_]\w*(?:\.\w+)+={_NUMBER}"
_SCALE: Final = rf"{_PLACE}(?:\+{_PLACE}|,{_DOTTED})*|{_POINT}(?:\+{_POINT})*"
_AT_END: Final = re.compile(rf"(?P<front>.*):(?P<scale>{_SCALE})(?P<rest>,.*)?", re.DOTALL)


def split_scale(text: str) -> tuple[str, Any]:
    """Splits a scale by place, or a schedule, from the value of `--adapter`.

    Returns:
        The value without the scale, and the scale as `Condition` takes it; None without one.

    Raises:
        click.BadParameter: A place is given twice, or the points are not in order.
    """
    match = _AT_END.fullmatch(text)
    if match is None:
        return text, None
    parts = re.split("[+,]", match["scale"])
    front = match["front"] + (match["rest"] or "")
    if "=" not in match["scale"]:
        points = [tuple(map(float, part.split("@"))) for part in parts]
        schedule = [(progress, scale) for scale, progress in points]
        progress = [point[0] for point in schedule]
        if progress != sorted(progress) or not 0 <= progress[0] <= progress[-1] <= 1:
            raise click.BadParameter(
                f"the points of {match['scale']!r} are not in order, between 0 and 1; write "
                "1@0+0.2@0.5 for a scale of 1 that falls to 0.2 in the first half of the steps"
            )
        return front, schedule
    pairs = [part.split("=") for part in parts]
    if twice := [name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i])]:
        raise click.BadParameter(f"the place {twice[0]} has two scales in {match['scale']!r}")
    return front, {name: float(number) for name, number in pairs}


def written_scale(scale: Any) -> str:
    """Returns a scale as `--adapter` takes it."""
    if isinstance(scale, Mapping):
        return "+".join(f"{name}={number:g}" for name, number in scale.items())
    if isinstance(scale, list):
        return "+".join(f"{value:g}@{progress:g}" for progress, value in scale)
    return f"{scale:g}"
