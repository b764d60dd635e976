"""The matrix of language adapters knows those that are installed, and finds faults."""

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import pytest
from torch import Tensor

from refiners_core import Adapter, Chain, Context, Layer
from refiners_core.models.decoder import CACHE, LanguageModel
from refiners_core.testing import tiny_language_model

from . import language_matrix, language_stage
from .language_matrix import Troupe
from .stage import Fault


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_language_model(ends=())


def test_every_adapter_that_reads_files_has_some(model: LanguageModel):
    assert {plugin.name for plugin in language_stage.suitable(model)} == {*language_stage.FILES}


@pytest.mark.filterwarnings("ignore")
def test_a_sample_keeps_the_laws():
    forms = ["LoRA", "rsLoRA with patterns", "prompt-tuning", "fusion"]
    result = language_matrix.checked("llama", forms, 1)
    assert result == (4, 12, 0, 1)


Change = Callable[[Tensor | None, Tensor, Context], Tensor]
"""Scales, (rows, 1, 1), and features to other features."""


class Changed(Layer):
    """Changes the features of a block."""

    def __init__(self, change: Change, key: str) -> None:
        super().__init__()
        self.change, self.key = change, key

    def run(self, context: Context, *inputs: Any) -> Tensor:
        scale = context.get(self.key)
        return self.change(None if scale is None else scale.scales.view(-1, 1, 1), *inputs, context)


class Faulty(Adapter):
    """Changes the outputs of blocks."""

    scales_rows = True

    def __init__(self, change: Change, key: str) -> None:
        super().__init__(key=key)
        self.change = change

    def edits(self, model: Any) -> Any:
        layer = Changed(self.change, self.scale_key)
        return model.slot("decoder.block").wrap(
            lambda inner, seat: Chain(inner, layer), stage="output"
        )


def right(rows: Tensor | None, x: Tensor, context: Context) -> Tensor:
    return x if rows is None else x + rows * x.flip(-1)


def always_on(rows: Tensor | None, x: Tensor, context: Context) -> Tensor:
    return x * 2


def mixed_rows(rows: Tensor | None, x: Tensor, context: Context) -> Tensor:
    return x if rows is None else x + rows.mean() * x.flip(-1)


def uncached(rows: Tensor | None, x: Tensor, context: Context) -> Tensor:
    return right(rows, x if context.get(CACHE) is None else x / 2, context)


class Ageing(Faulty):
    """Is stronger each time that it is put on."""

    def __init__(self, change: Change, key: str) -> None:
        super().__init__(change, key)
        self.ages = count(1)

    def edits(self, model: Any) -> Any:
        age, change = next(self.ages), self.change
        self.change = lambda rows, x, context: right(
            None if rows is None else rows * age, x, context
        )
        edits = super().edits(model)
        self.change = change
        return edits


FAULTS: Mapping[str, tuple[type[Faulty], Change]] = {
    "at condition None the logits are not those": (Faulty, always_on),
    "a text with a at scale 0 in a batch": (Faulty, mixed_rows),
    "decoding with a cache is not decoding without": (Faulty, uncached),
    "the logits depend on the order": (Ageing, right),
}


@pytest.mark.parametrize("law", FAULTS)
def test_a_broken_law_is_found(law: str, model: LanguageModel):
    kind, change = FAULTS[law]
    adapters = {"a": kind(change, "a"), "b": Faulty(right, "b")}
    with pytest.raises(Fault, match=law):
        language_matrix.check_pairs(Troupe(model, adapters), [("a", "b")])
    assert not model.adapters


def test_adapters_that_keep_the_laws_pass(model: LanguageModel):
    adapters = {key: Faulty(right, key) for key in "abc"}
    troupe = Troupe(model, adapters)
    assert not language_matrix.check_pairs(troupe, [("a", "b"), ("a", "c"), ("b", "c")])
    language_matrix.check_triples(troupe, set(), 2)
