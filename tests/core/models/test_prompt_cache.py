"""A prompt cache saves reading what was read, and never changes a text."""

import gc
import weakref
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import nn

from refiners_core import Adapter, Chain, Condition, Edit, Multiply, Seat, Sum, When
from refiners_core.errors import GenerationError
from refiners_core.models.decoder import LanguageModel, PromptCache
from refiners_core.testing import tiny_language_model

MOST = 6
PROMPT = "Once upon a time there was"


class Beside(Adapter):
    """Adds a small change to each linear layer."""

    def __init__(self, seed: int, **options: Any) -> None:
        super().__init__(**options)
        self.seed = seed

    def edits(self, model: LanguageModel) -> Iterable[Edit]:
        def beside(inner: nn.Module, seat: Seat) -> nn.Module:
            def made() -> nn.Module:
                torch.manual_seed(self.seed)
                return nn.Linear(seat.layer.in_features, seat.layer.out_features)

            change = self.layer(seat, made)
            return Sum(inner, When(self.scale_key, change, Multiply(self.scale_key)))

        return model.slot("decoder.linear").wrap(beside, name="beside")


@pytest.fixture(params=["llama", "window"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    windows = {"windows": (4, None), "layers": 2} if request.param == "window" else {}
    return tiny_language_model(ends=(), **windows)


def written(model: LanguageModel, prompt: Any, **options: Any) -> Any:
    return model.generate(prompt, max_new_tokens=MOST, output="tokens", **options)


def test_the_next_turn_reads_only_what_is_new(model: LanguageModel):
    cache = PromptCache()
    first = written(model, PROMPT, reuse=cache)
    assert torch.equal(first, written(model, PROMPT))
    tokens = model.tokenizer.tokens(PROMPT)
    assert cache.length == len(tokens) + MOST - 1  # the last token was not read
    turn = torch.tensor([*tokens, *first.tolist(), 7, 9])
    read: list[int] = []
    hook = model.decoder.register_forward_pre_hook(
        lambda _, inputs: read.append(inputs[0].shape[1])
    )
    second = written(model, turn, reuse=cache)
    hook.remove()
    assert read[0] == 3  # the last token of the answer, and two new ones
    assert cache.reused == len(tokens) + MOST - 1
    assert torch.equal(second, written(model, turn))
    assert repr(cache) == f"PromptCache(length={len(turn) + MOST - 1})"
    cache.clear()
    assert torch.equal(written(model, turn, reuse=cache), second)
    assert cache.reused == 0


def test_only_the_common_beginning_is_taken_over(model: LanguageModel):
    cache = PromptCache()
    written(model, PROMPT, reuse=cache)
    other = PROMPT[:10] + "# and then"
    assert torch.equal(written(model, other, reuse=cache), written(model, other))
    assert cache.reused == 11  # the token that begins a text is one of them
    same = written(model, other, reuse=cache)  # all but the last token of the prompt
    assert torch.equal(same, written(model, other))
    assert cache.reused == len(model.tokenizer.tokens(other)) - 1
    shorter = other[:5]
    assert torch.equal(written(model, shorter, reuse=cache), written(model, shorter))
    assert cache.reused == 5


def test_rows_of_a_batch_share_it_and_padding_is_not_kept(model: LanguageModel):
    cache = PromptCache()
    prompts = [PROMPT, PROMPT + " a bird that sang", PROMPT + " x"]
    written(model, PROMPT, reuse=cache)
    together = written(model, prompts, reuse=cache)
    assert cache.reused == len(PROMPT)
    for row, prompt in zip(together, prompts, strict=True):
        assert torch.equal(row, written(model, prompt))
    assert cache.length == len(PROMPT) + MOST  # of the first row, which has padding
    assert torch.equal(written(model, prompts[1], reuse=cache), together[1])
    assert torch.equal(written(model, prompts[0], reuse=cache), together[0])


def test_streams_keep_as_well_and_a_closed_one_keeps_the_last(model: LanguageModel):
    cache = PromptCache()
    whole = "".join(model.stream(PROMPT, max_new_tokens=MOST, reuse=cache))
    assert whole == model.generate(PROMPT, max_new_tokens=MOST)
    length = cache.length
    stream = model.stream(PROMPT + "!", max_new_tokens=MOST, reuse=cache)
    next(stream)
    stream.close()
    assert cache.length == length
    assert torch.equal(written(model, PROMPT, reuse=cache), written(model, PROMPT))


def test_every_state_of_the_model_reads_anew(model: LanguageModel):
    cache = PromptCache()
    a, b = Beside(1, key="a"), Beside(2, key="b")

    def check(**options: Any) -> int:
        cold = written(model, PROMPT, **options)
        assert torch.equal(written(model, PROMPT, reuse=cache, **options), cold)
        reused = cache.reused
        assert torch.equal(written(model, PROMPT, reuse=cache, **options), cold)
        assert cache.reused == len(PROMPT)  # the same state again
        return reused

    assert check() == 0
    with a.on(model):
        assert check() == 0
        assert check(conditions={a: Condition(scale=0.5)}) == 0
        assert check(conditions={a: None}) == 0
        weight = next(a.parameters())
        weight.data = torch.randn_like(weight)
        assert check() == 0
        with torch.no_grad():
            weight.mul_(2)
        assert check() == 0
        with b.on(model):
            assert check() == 0
        assert check() == 0
    assert check() == 0
    with b.on(model):
        assert check() == 0
    with Beside(3, key="a").on(model):  # another one of the same name
        assert check() == 0
    with torch.no_grad():
        model.decoder.head.weight.mul_(0.5)
    assert check() == 0


def test_rows_of_different_adapters_do_not_share(model: LanguageModel):
    cache, a = PromptCache(), Beside(1, key="a")
    prompts = [PROMPT, PROMPT]
    written(model, PROMPT, reuse=cache)
    with a.on(model):
        by_row = {a: Condition(scale=[0.0, 1.0])}
        rows = written(model, prompts, conditions=by_row, reuse=cache)
        assert cache.reused == 0
        expected = written(model, prompts, conditions=by_row)
        assert all(torch.equal(x, y) for x, y in zip(rows, expected, strict=True))
        assert not torch.equal(*rows)
        equal = written(model, prompts, reuse=cache)
        assert torch.equal(equal[0], rows[1])
        assert torch.equal(written(model, PROMPT, reuse=cache), rows[1])
        assert cache.reused == len(PROMPT)


def test_it_keeps_no_layer_alive():
    model, cache = tiny_language_model(ends=()), PromptCache()
    adapter = Beside(1, key="a").inject(model)
    written(model, PROMPT, reuse=cache)
    alive = weakref.ref(adapter)
    adapter.eject()
    del adapter
    gc.collect()
    assert alive() is None


def test_what_is_no_cache_is_refused(model: LanguageModel):
    with pytest.raises(GenerationError, match=r"reuse is a PromptCache that calls share, not True"):
        model.generate(PROMPT, reuse=True)
    model.check(PROMPT, reuse=PromptCache())


def test_chains_of_the_decoder_take_a_cache_in_any_order():
    model, cache = tiny_language_model(ends=()), PromptCache()
    texts = [PROMPT, "x", PROMPT[:4], PROMPT * 2, PROMPT]
    for text in texts:
        assert torch.equal(written(model, text, reuse=cache), written(model, text))
    assert isinstance(model.layer("decoder"), Chain)
