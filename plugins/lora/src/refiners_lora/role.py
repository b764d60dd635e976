"""The roles of published weights: what the end of a key says, in every dialect."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

PEFT: Final = "base_model.model."
"""The prefix of layer names in files that PEFT writes."""


class Named(NamedTuple):
    """The key of a weight, taken apart."""

    layer: str
    """The name of the layer, as the file spells it."""
    role: str
    """The role of the weight, such as `down`, or `alpha` or `scalar`."""


def parse(key: str) -> Named | None:
    """Returns the layer and the role that a key names; None if it belongs to no method."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    groups = {name: text for name, text in match.groupdict().items() if text and name != "name"}
    layer = match["name"].replace(PEFT, "", 1)
    for group, text in groups.items():
        return Named(layer, _ROLES.get(group, {}).get(text, text))
    return Named(layer, next(role for end, role in _ENDS.items() if re.search(end, key)))


def written(role: str) -> str:
    """Returns the end of a key in files that we write, which is that of kohya and LyCORIS."""
    return _WRITTEN.get(role, role)


_KEY: Final = re.compile(
    r"(?P<name>.+?)(?:"
    r"(?:\.lora_|\.lora\.|\.lora_linear_layer\.|(?<=_lora)\.)(?P<half>down|up|A|B)(?:\.\w+)?\.weight"
    r"|\.lora_(?P<bias>up|B)(?:\.\w+)?\.bias"
    r"|\.lora_embedding_(?P<embedding>[AB])(?:\.\w+)?"
    r"|\.(?P<plain>input_rotation|boft_[Rs]|hada_[wt][12](?:_[ab])?|lokr_[wt][12](?:_[ab])?|oft_blocks|oft_diag|rescale"
    r"|diff_b|diff|w_norm|b_norm|on_input|ia3_l|dora_scale|scalar)(?:\.(?!weight)\w+)?"
    r"|\.(?P<triangle>oft_R)(?:\.\w+)?\.weight"
    r"|\.(?P<letter>[ab][12]|bm)\.weight"
    r"|\.lora_mid\.weight|\.lora_magnitude_vector(?:\.\w+)*|(?:\.lora)?\.alpha|\.weight)"
)
_ROLES: Final[Mapping[str, Mapping[str, str]]] = {
    "half": {"down": "down", "A": "down", "up": "up", "B": "up"},
    "bias": {"up": "up_bias", "B": "up_bias"},
    "embedding": {"A": "embedding_a", "B": "embedding_b"},
}
_ENDS: Final[Mapping[str, str]] = {
    r"\.lora_mid\.weight$": "mid",
    r"\.lora_magnitude_vector(\.\w+)*$": "magnitude",
    r"\.alpha$": "alpha",
    r"\.weight$": "weight",
}
_WRITTEN: Final[Mapping[str, str]] = {
    "down": "lora_down.weight",
    "up": "lora_up.weight",
    "mid": "lora_mid.weight",
    "up_bias": "lora_up.bias",
    "magnitude": "lora_magnitude_vector",
    "embedding_a": "lora_embedding_A",
    "embedding_b": "lora_embedding_B",
    **{letter: f"{letter}.weight" for letter in ("a1", "a2", "b1", "b2", "bm")},
}
