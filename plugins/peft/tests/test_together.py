"""Adapters of PEFT's files go together: all pairs and random triples, in any order."""

import random
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import refiners
import torch
from language_model import ADAPTERS, LanguageLora
from refiners.testing import LoopbackHub

from refiners_core import Adapter, Condition
from refiners_core.testing import Neighbour

from .published import METHODS, language_model, published, worn

ROWS = [torch.arange(4), torch.arange(7)]


def scores(model: Any, conditions: Any = None) -> torch.Tensor:
    rows = model.score(ROWS, conditions=conditions)
    return torch.cat([row.log_probabilities for row in rows])


@pytest.fixture(scope="module")
def model():
    return language_model("gemma2")


@pytest.fixture(scope="module")
def made(model: Any, tmp_path_factory: Any) -> list[Adapter]:
    folder: Path = tmp_path_factory.mktemp("adapters")
    made = [
        worn(method, folder / f"{method}{i}", model, seed=i, tokens=2 + i).eject()
        for method in METHODS
        for i in range(2)
    ]
    return [*made, LanguageLora(key="lora").inject(model).eject()]


@pytest.fixture
def adapters(model: Any, made: list[Adapter]) -> Any:
    """Two adapters of each method, and one beside linear layers, none of them worn."""
    yield made
    model.eject_all()


def test_all_pairs_do_not_mind_the_order(model: Any, adapters: list[Adapter]):
    bare = scores(model)
    single = [scores_with(model, adapter) for adapter in adapters]
    assert all(not torch.allclose(text, bare, atol=1e-3) for text in single)
    # The first of each method with each other, and both of a method.
    pairs = [*combinations(range(0, len(adapters), 2), 2), *((i, i + 1) for i in range(0, 10, 2))]
    for i, j in pairs:
        first, second = adapters[i], adapters[j]
        first.inject(model)
        second.inject(model)
        both = scores(model)
        assert torch.equal(scores(model, {second: None}), single[i]), (first, second)
        first.eject()
        assert torch.equal(scores(model), single[j]), (first, second)
        first.inject(model)
        assert torch.equal(scores(model), both), (first, second)
        mixed = scores(model, {first: Condition(scale=[1, 0]), second: Condition(scale=[0, 1])})
        begin = len(ROWS[0]) - 1
        assert torch.allclose(mixed[:begin], single[i][:begin], atol=1e-5), (first, second)
        assert torch.allclose(mixed[begin:], single[j][begin:], atol=1e-5), (first, second)
        second.eject()
        first.eject()
    assert torch.equal(scores(model), bare)


def scores_with(model: Any, adapter: Adapter) -> torch.Tensor:
    with adapter.on(model):
        return scores(model)


def test_random_triples_leave_no_trace(model: Any, adapters: list[Adapter]):
    draws = random.Random(3)
    bare = scores(model)
    known: dict[frozenset[int], torch.Tensor] = {}
    for _ in range(100):
        chosen = draws.sample(range(len(adapters)), 3)
        for i in chosen:
            adapters[i].inject(model)
        text = scores(model)
        assert torch.equal(known.setdefault(frozenset(chosen), text), text)
        for i in draws.sample(chosen, 3):
            adapters[i].eject()
    assert len(known) < 100  # some sets came again, in another order
    assert torch.equal(scores(model), bare)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters_of_others_go_with_all(kind: Any, model: Any, adapters: list[Adapter]):
    for adapter in adapters[::2]:
        adapter.inject(model)
    worn_text = scores(model)
    other = kind(key=f"other-{kind.__name__.lower()}").inject(model)
    text = scores(model)
    assert not torch.allclose(text, worn_text, atol=1e-3)
    results = model.generate(ROWS, max_new_tokens=3, output="scores")
    for row, result in zip(ROWS, results, strict=True):
        whole = model.score(torch.cat([row, result.tokens])).log_probabilities
        assert torch.allclose(whole[-3:], result.log_probabilities, atol=1e-4)
    other.eject()
    assert torch.equal(scores(model), worn_text)


def test_an_adapter_that_is_always_on_reaches_learned_tokens(model: Any, adapters: list[Adapter]):
    prompt = next(adapter for adapter in adapters if adapter.name == "prompt-tuning")
    prompt.inject(model)
    alone = scores(model)
    with Neighbour(key="neighbour").on(model):
        assert not torch.allclose(scores(model), alone, atol=1e-4)
    assert torch.equal(scores(model), alone)


@pytest.mark.parametrize("method", METHODS)
def test_a_hot_swap_takes_the_weights_and_the_configuration(
    method: str, model: Any, tmp_path: Path
):
    first, second = (worn(method, tmp_path / str(i), model, seed=i).eject() for i in range(2))
    texts = [scores_with(model, adapter) for adapter in (first, second)]
    with first.on(model):
        first.hotswap(second)
        assert torch.equal(scores(model), texts[1])
        (tmp_path / "saved").mkdir()
        first.save(tmp_path / "saved" / "adapter_model.safetensors")
    assert torch.equal(scores_with(model, second), texts[0])
    assert torch.equal(scores_with(model, refiners.load_adapter(str(tmp_path / "saved"))), texts[1])


def test_a_repository_of_the_hub_is_read_with_its_configuration(model: Any, tmp_path: Path):
    folder = published("fourier-ft", tmp_path / "style")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with LoopbackHub() as hub, hub.in_use(tmp_path):
        hub.publish("org/style", files)
        fetched = refiners.load_adapter("hf:org/style")
        assert torch.equal(
            scores_with(model, fetched),
            scores_with(model, refiners.load_adapter(str(folder))),
        )
