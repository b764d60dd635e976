"""The keys in published files that hold no weights."""

from fnmatch import fnmatchcase
from typing import Final

WEIGHTLESS: Final = (
    "*position_ids",  # 0, 1, 2 and so on, which transformers used to save
    "*logit_scale",  # the temperature of CLIP's training loss
    "*attn_mask",  # the causal mask
    "*model_ema.*",  # running averages beside the weights
    "*num_batches_tracked",
)
"""Patterns of the keys that loading ignores, under any prefix, unless the tree has them."""


def is_weightless(key: str) -> bool:
    """Whether a published key holds no weights."""
    return any(fnmatchcase(key, pattern) for pattern in WEIGHTLESS)
