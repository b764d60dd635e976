"""Prompt weighting: `a (red:1.3) circle`."""

import re
from typing import Final, NamedTuple

from jaxtyping import Float
from torch import Tensor

_WEIGHT: Final = re.compile(r":\s*(\d+(?:\.\d+)?|\.\d+)\s*$")


class WeightedText(NamedTuple):
    """A part of a prompt and its weight."""

    text: str
    weight: float


def broken_at(text: str) -> int | None:
    """Returns the position of half a character in a text, or None.

    Strings of Python may have a surrogate without its other half, which no encoding has: from an
    emoji that was cut in two, or from bytes on the shell that are not UTF-8.

    Example:
        >>> broken_at("a cat " + chr(0xD83D))
        6
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


def parse_weights(prompt: str) -> list[WeightedText]:
    """Splits a prompt into parts of one weight each.

    `(text:number)` multiplies the weight of the text, which is 1 by default, by a number of at
    least 0; groups nest. Other parentheses, brackets and colons are plain text, so a prompt without
    such a group means the same as in other tools. A backslash makes the parenthesis or backslash
    after it plain text. The notation is that of AUTOMATIC1111's web interface, without its
    parentheses and brackets that have no number.

    Example:
        >>> parse_weights("a (red:1.5) circle (on paper)")  # doctest: +NORMALIZE_WHITESPACE
        [WeightedText(text='a ', weight=1.0), WeightedText(text='red', weight=1.5),
         WeightedText(text=' circle (on paper)', weight=1.0)]
    """
    characters: list[str] = []
    weights: list[float] = []
    opened: list[int] = []
    position = 0
    while position < len(prompt):
        character = prompt[position]
        following = prompt[position + 1 : position + 2]
        is_escaped = character == "\\" and following in ("(", ")", "\\")
        position += 1 + is_escaped
        if is_escaped:
            character = prompt[position - 1]
        elif character == ")" and opened:
            start = opened.pop()
            match = _WEIGHT.search("".join(characters[start + 1 :]))
            if match is not None:
                end = start + 1 + match.start()
                factor = float(match[1])
                characters[start:] = characters[start + 1 : end]
                weights[start:] = [factor * weight for weight in weights[start + 1 : end]]
                continue
        elif character == "(":
            opened.append(len(characters))
        characters.append(character)
        weights.append(1.0)
    parts: list[WeightedText] = []
    for character, weight in zip(characters, weights, strict=True):
        if parts and parts[-1].weight == weight:
            parts[-1] = WeightedText(parts[-1].text + character, weight)
        else:
            parts.append(WeightedText(character, weight))
    return parts


def apply_weights(
    features: Float[Tensor, "rows tokens width"],
    weights: Float[Tensor, "rows tokens"],
    empty: Float[Tensor, "#rows tokens width"],
) -> Float[Tensor, "rows tokens width"]:
    """Returns features that are scaled, by their weights, away from those of an empty prompt.

    `empty + weight (features - empty)` for each token, the rule of ComfyUI (`comfy/sd1_clip.py`). A
    weight of 1 changes no bit, and no token changes another.

    Args:
        features: The features of each token.
        weights: The weight of each token.
        empty: The features of an empty prompt, for all rows or for each.
    """
    weighted = empty + weights[..., None].to(features) * (features - empty)
    return weighted.where(weights[..., None].to(features.device) != 1, features)
