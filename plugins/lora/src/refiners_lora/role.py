"""The roles of published weights: what the end of a key says, in every dialect."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

PEFT: Final = "base_model.model."
"""The prefix of layer names in files that PEFT writes."""
_WRAPPERS: Final = frozenset(
    {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
)
"""The words that compiled, distributed and checkpointed training puts between those of a name."""


class Named(NamedTuple):
    """The key of a weight, taken apart."""

    layer: str
    """The name of the layer, as the file spells it."""
    role: str
    """The role of the weight, such as `down`, or `alpha` or `scalar`."""


def unwrapped(key: str) -> str:
    """Returns a key without the words of wrappers around modules, wherever they are."""
    return ".".join([word for word in key.split(".") if word not in _WRAPPERS])


def parse(key: str) -> Named | None:
    """Returns the layer and the role that a key names; None if it belongs to no method."""
    key = unwrapped(key)
    match = _KEY.fullmatch(key)
    if match is None or match["name"].endswith(".original_module"):
        return None
    is_peft = PEFT in key
    groups = {name: text for name, text in match.groupdict().items() if text and name != "name"}
    layer = match["name"].replace(PEFT, "", 1)
    for group, text in groups.items():
        if group == "whole" and not is_peft:
            return Named(layer, "weight") if key == f"{layer}.weight" else None
        return Named(layer, _ROLES.get(group, {}).get(text, text))
    return Named(layer, next(role for end, role in _ENDS.items() if re.search(end, key)))


def written(role: str) -> str:
    """Returns the end of a key in files that we write, which is that of kohya and LyCORIS."""
    return _WRITTEN.get(role, role)


_ADAPTER = r"(?:\.(?!weight$|bias$)[^.]+)?"
"""The name of the adapter, which PEFT leaves out of files."""
_KEY: Final = re.compile(
    r"(?P<name>.+?)(?:"
    rf"(?:\.lora_|\.lora\.|\.lora_linear_layer\.|(?<=_lora)\.)(?P<half>down|up|A|B){_ADAPTER}\.weight"
    rf"|\.lora_(?P<bias>up|B){_ADAPTER}\.bias"
    rf"|\.lora_embedding_(?P<embedding>[AB]){_ADAPTER}"
    rf"|\.lora_(?P<adaptive>[ABE]){_ADAPTER}"
    rf"|(?:\.token_adapter)?\.(?P<tokens>trainable_tokens_delta){_ADAPTER}"
    r"|\.(?P<plain>input_rotation|boft_[Rs]|hada_[wt][12](?:_[ab])?|lokr_[wt][12](?:_[ab])?|oft_blocks|oft_diag|rescale"
    r"|diff_b|diff|w_norm|b_norm|on_input|ia3_l|dora_scale|scalar)(?:\.(?!weight)\w+)?"
    rf"|\.(?P<triangle>oft_R){_ADAPTER}\.weight"
    r"|\.(?P<letter>[ab][12]|bm)\.weight"
    rf"|\.lora_mid\.weight|\.lora_magnitude_vector(?:\.\w+)*|(?:\.lora)?\.alpha"
    r"|(?:\.modules_to_save(?:\.[^.]+)?|\.base_layer)?\.(?P<whole>weight|bias))"
)
_ROLES: Final[Mapping[str, Mapping[str, str]]] = {
    "half": {"down": "down", "A": "down", "up": "up", "B": "up"},
    "bias": {"up": "up_bias", "B": "up_bias"},
    "embedding": {"A": "embedding_a", "B": "embedding_b"},
    "adaptive": {"A": "adaptive_a", "B": "adaptive_b", "E": "adaptive_e"},
    "tokens": {"trainable_tokens_delta": "tokens"},
    "whole": {"weight": "whole", "bias": "whole_bias"},
}
_ENDS: Final[Mapping[str, str]] = {
    r"\.lora_mid\.weight$": "mid",
    r"\.lora_magnitude_vector(\.\w+)*$": "magnitude",
    r"\.alpha$": "alpha",
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
