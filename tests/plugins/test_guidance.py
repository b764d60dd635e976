"""Options of guidance that the types of its packages refuse as well."""

from typing import Any

import pytest
from refiners_guidance.perturbed_attention import PerturbedAttention

from refiners_core.errors import AdapterError


@pytest.mark.parametrize("layers", [None, 3, [], {}, [1], ["mid", None]])
def test_layers_are_a_list_of_texts(layers: Any):
    with pytest.raises(AdapterError, match=r'layers is a list of parts.*Try layers=\["mid"\]'):
        PerturbedAttention(layers=layers)
