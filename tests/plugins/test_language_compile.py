"""Compiled language models: prompts of other lengths and adapters compile nothing new."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from refiners_lora.adapter import Lora

from refiners_core import Condition
from refiners_core.models.decoder import CACHE, Cache, LanguageModel, PromptCache
from refiners_core.testing import tiny_language_model

KINDS: dict[str, tuple[dict[str, Any], int]] = {
    "llama": ({}, 1),
    "gemma2": (
        {
            "windows": (4, None), "attention_cap": 5.0, "logit_cap": 3.0,
            "has_output_norm": True,
        },
        2,
    ),
}  # fmt: skip
"""The changes of a configuration, and the number of its kinds of block."""
SIZES = (([6], 3), ([9], 4), ([1], 3), ([9, 7], 3), ([5, 3, 2], 4), ([7, 7], 2))
"""The numbers of tokens of the prompts of a call, and of new tokens: two sizes of every kind, one
text and several, with padding and without."""


class Counted:
    """A backend of torch.compile that counts its graphs."""

    def __init__(self) -> None:
        torch.compiler.reset()
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward


def prompts_of(lengths: list[int]) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(0, 250, (length,), generator=source) for length in lengths]


def written(model: LanguageModel, lengths: list[int], tokens: int, **options: Any) -> Any:
    """Writes tokens; returns their log probabilities and themselves."""
    results = model.generate(prompts_of(lengths), max_new_tokens=tokens, output="scores", **options)
    return [(result.log_probabilities, result.tokens) for result in results]


def is_equal(ours: Any, theirs: Any) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(torch.allclose(a, b, rtol=0, atol=1e-5) and c.equal(d) for (a, c), (b, d) in pairs)


def compiled(kind: str) -> tuple[LanguageModel, LanguageModel, Counted]:
    """Returns a model with compiled blocks, the same one without, and the counter of graphs."""
    changes, _ = KINDS[kind]
    model, plain = (tiny_language_model(ends=(), **changes) for _ in range(2))
    counted = Counted()
    model.compile(backend=counted)
    return model, plain, counted


def warm(model: LanguageModel, **options: Any) -> None:
    """Lets a model see two sizes of every kind."""
    for lengths, tokens in SIZES:
        written(model, lengths, tokens, **options)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_each_kind_of_block_is_one_graph(kind: str):
    model, plain, counted = compiled(kind)
    ids = torch.arange(10).view(2, 5)
    assert torch.allclose(model.decoder(ids), plain.decoder(ids), rtol=0, atol=1e-5)
    assert counted.graphs == KINDS[kind][1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_prompts_of_other_lengths_and_further_tokens_compile_nothing(kind: str):
    model, plain, counted = compiled(kind)
    warm(model)
    graphs = counted.graphs
    for lengths in ([30], [3], [1], [11, 2], [2, 17, 8, 4]):
        for tokens in (1, 9):
            assert is_equal(written(model, lengths, tokens), written(plain, lengths, tokens))
    assert counted.graphs == graphs


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_and_their_scales_compile_a_new_set_once(kind: str):
    model, plain, counted = compiled(kind)
    pair: list[Lora] = []
    for each in (model, plain):
        adapter = Lora(rank=2, key="style").inject(each)
        source = torch.Generator().manual_seed(3)
        for weight in adapter.parameters():
            weight.data = torch.randn(weight.shape, generator=source) * 0.3
        adapter.eject()
        pair.append(adapter)
    worn, peer = pair
    graphs: list[int] = []
    for turn in range(2):
        for scale in (None, 1.0, 0.5, 1.7):
            if scale is not None and not worn.is_worn:
                worn.inject(model)
                peer.inject(plain)
            ours = {} if scale is None else {worn: Condition(scale=scale)}
            theirs = {} if scale is None else {peer: Condition(scale=scale)}
            if not turn:
                for lengths, tokens in SIZES[:2]:
                    written(model, lengths, tokens, conditions=ours)
            assert is_equal(
                written(model, [14], 5, conditions=ours),
                written(plain, [14], 5, conditions=theirs),
            )
            graphs.append(counted.graphs)
        worn.eject()
        peer.eject()
    bare, both = graphs[0], graphs[1]
    assert bare < both <= 2 * bare + 2
    assert graphs == [bare, *[both] * 7]


@pytest.mark.slow
@torch.no_grad()
def test_a_cache_serves_a_compiled_model_as_it_serves_a_plain_one():
    model, plain, counted = compiled("llama")
    for lengths, tokens in SIZES[:3]:
        written(model, lengths, tokens)
    kept, theirs = PromptCache(), PromptCache()
    for more in (3, 4, 6, 9):
        prompt = torch.arange(12 + more) % 200
        ours = model.generate(prompt, max_new_tokens=5, output="tokens", reuse=kept)
        assert ours.equal(plain.generate(prompt, max_new_tokens=5, output="tokens", reuse=theirs))
        assert kept.reused == theirs.reused
    assert kept.reused
    graphs = counted.graphs
    ids = torch.arange(40)[None]
    cache = Cache(2)  # it grows between the calls
    with torch.inference_mode():
        parts = [model.decoder(part, context={CACHE: cache}) for part in ids.split(1, dim=1)]
    assert torch.allclose(torch.cat(parts, 1), plain.decoder(ids), rtol=0, atol=1e-5)
    assert counted.graphs == graphs
