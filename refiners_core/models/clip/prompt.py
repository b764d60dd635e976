"""What a prompt stresses: `a (red:1.3) circle`."""

import re
from typing import Final, NamedTuple

from jaxtyping import Float
from torch import Tensor

_WEIGHT: Final = re.compile(r":\s*(\d+(?:\.\d+)?|\.\d+)\s*$")


class Stressed(NamedTuple):
    """A part of a prompt and how much it counts."""

    text: str
    weight: float


def broken_at(text: str) -> int | None:
    """Returns where a text has half a character; None where it is Unicode throughout.

    Python's strings may hold surrogates without their other half, which no encoding has: of an
    emoji that was cut in two, or of bytes on the shell that are not UTF-8.

    Example:
        >>> broken_at("a cat " + chr(0xD83D))
        6
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


def parse_weights(prompt: str) -> list[Stressed]:
    r"""Splits a prompt into parts of one weight each.

    `(text:number)` multiplies the weight of the text, which is 1 elsewhere, by a number from 0 on;
    such groups nest. Other parentheses, brackets and colons stand for themselves, so a prompt
    without such a group means what it means to other tools; `\(`, `\)` and `\\` stand for `(`, `)`
    and `\` where they would not. The notation is that of AUTOMATIC1111's web interface, without
    what it reads into parentheses and brackets that name no number.

    Example:
        >>> parse_weights("a (red:1.5) circle (on paper)")  # doctest: +NORMALIZE_WHITESPACE
        [Stressed(text='a ', weight=1.0), Stressed(text='red', weight=1.5),
         Stressed(text=' circle (on paper)', weight=1.0)]
    """
    signs: list[str] = []
    weights: list[float] = []
    opened: list[int] = []
    place = 0
    while place < len(prompt):
        sign = prompt[place]
        is_escaped = sign == "\\" and prompt[place + 1 : place + 2] in ("(", ")", "\\")
        place += 1 + is_escaped
        if is_escaped:
            sign = prompt[place - 1]
        elif sign == ")" and opened:
            start = opened.pop()
            said = _WEIGHT.search("".join(signs[start + 1 :]))
            if said is not None:
                end = start + 1 + said.start()
                signs[start:] = signs[start + 1 : end]
                weights[start:] = [float(said[1]) * weight for weight in weights[start + 1 : end]]
                continue
        elif sign == "(":
            opened.append(len(signs))
        signs.append(sign)
        weights.append(1.0)
    parts: list[Stressed] = []
    for sign, weight in zip(signs, weights, strict=True):
        if parts and parts[-1].weight == weight:
            parts[-1] = Stressed(parts[-1].text + sign, weight)
        else:
            parts.append(Stressed(sign, weight))
    return parts


def apply_weights(
    features: Float[Tensor, "rows tokens width"],
    weights: Float[Tensor, "rows tokens"],
    empty: Float[Tensor, "1 tokens width"],
) -> Float[Tensor, "rows tokens width"]:
    """Returns features that lie, by their weights, beyond or before those of an empty prompt.

    `empty + weight (features - empty)` for each token, the rule of ComfyUI (`comfy/sd1_clip.py`):
    a weight of 1 changes nothing, not a bit, and no token changes another.
    """
    beyond = empty + weights[..., None].to(features) * (features - empty)
    return beyond.where(weights[..., None].to(features.device) != 1, features)
