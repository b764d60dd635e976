"""Keys that published files carry and that hold no weights."""

from fnmatch import fnmatchcase
from typing import Final

WEIGHTLESS: Final = (
    "*position_ids",  # 0, 1, 2 and so on, which transformers used to save
    "*logit_scale",  # how texts and pictures were compared while CLIP was trained
    "*attn_mask",  # which tokens come before which
    "*model_ema.*",  # an average of training, beside the weights that were saved
    "*num_batches_tracked",
)
"""The keys that no layout gives a place, under every prefix; a tree's own keys come first."""


def is_weightless(key: str) -> bool:
    """Whether a key holds no weights of any network."""
    return any(fnmatchcase(key, pattern) for pattern in WEIGHTLESS)
