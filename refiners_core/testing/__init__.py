"""The contract of every adapter, for the tests of your adapter to check.

Example:
    >>> import pytest
    >>> from refiners_core.testing import LAWS, AdapterCase
    >>> @pytest.mark.parametrize("law", LAWS)
    ... def test_my_adapter_keeps_the_contract(law):
    ...     law(AdapterCase(MyAdapter, condition=picture, targets=[("unet.conv_in", "branch")]))
"""

from refiners_core.testing.case import AdapterCase, Neighbour, generated
from refiners_core.testing.conduct import CONDUCT
from refiners_core.testing.contract import LAWS, check_adapter
from refiners_core.testing.tiny import (
    tiny_language_model,
    tiny_model,
    tiny_sdxl,
    tiny_t5_tokenizer,
)

__all__ = [
    "CONDUCT",
    "LAWS",
    "AdapterCase",
    "Neighbour",
    "check_adapter",
    "generated",
    "tiny_language_model",
    "tiny_model",
    "tiny_sdxl",
    "tiny_t5_tokenizer",
]
