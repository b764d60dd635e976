"""Learned tokens come before every text: in positions, in caches, in batches and row by row."""

from pathlib import Path
from typing import Any

import pytest
import refiners
import torch
from language_model import LanguageLora, MoreTokens
from language_model import PromptTuning as InTheSequence

from refiners_core import Condition
from refiners_core.errors import ConditionError, GenerationError
from refiners_core.models.decoder import CACHE, TOKEN_MASK, Cache

from .published import IDS, VIRTUAL, contents, language_model, logits, published, save, worn

KINDS = ("llama", "mistral", "gemma2", "gpt2")
WORN = (
    ("prefix-tuning",),
    ("prompt-tuning",),
    VIRTUAL,
    ("prompt-tuning",) * 2,
    ("prefix-tuning",) * 2,
)
NEW = 5
ROWS = [torch.arange(2), torch.arange(9), torch.arange(5)]


def dress(model: Any, folder: Path, methods: tuple[str, ...]) -> list[Any]:
    return [
        worn(method, folder / str(i), model, seed=i, tokens=2 + i)
        for i, method in enumerate(methods)
    ]


def tokens(model: Any, rows: Any, **options: Any) -> list[Any]:
    return model.generate(rows, max_new_tokens=NEW, output="scores", **options)


@pytest.mark.parametrize(
    ("methods", "kind"),
    [(WORN[i], kind) for i in range(3) for kind in KINDS] + [(WORN[i], "gemma2") for i in (3, 4)],
)
def test_cached_batched_and_streamed_texts_are_those_of_full_forwards(
    methods: tuple[str, ...], kind: str, tmp_path: Path
):
    model = language_model(kind)
    bare = tokens(model, ROWS)
    adapters = dress(model, tmp_path, methods)
    results = tokens(model, ROWS)
    for row, result, other in zip(ROWS, results, bare, strict=True):
        assert (result.log_probabilities - other.log_probabilities).abs().max() > 1e-2
        text = row[None]
        for token in result.tokens:
            likely = logits(model, text, *adapters)[0, -1]
            assert int(likely.argmax()) == int(token)
            text = torch.cat([text, token.view(1, 1)], dim=1)
        score = model.score(text[0])
        assert len(score.log_probabilities) == text.shape[1] - 1
        assert torch.allclose(score.log_probabilities[-NEW:], result.log_probabilities, atol=1e-4)
    streamed = "".join(model.stream(ROWS[1], max_new_tokens=NEW))
    assert streamed == model.tokenizer.text(results[1].tokens.tolist())


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_is_what_it_is_as_tokens_of_the_sequence(kind: str, tmp_path: Path):
    model = language_model(kind)
    ids = torch.arange(7)[None]
    ours = worn("prompt-tuning", tmp_path / "a", model, tokens=2)
    prefix = worn("prefix-tuning", tmp_path / "b", model, tokens=3)
    lora = LanguageLora(key="lora").inject(model)
    texts = [logits(model, ids, *adapters) for adapters in ((ours,), (ours, prefix, lora))]
    ours.eject()
    theirs = InTheSequence(key="sequence").inject(model)
    (features,) = (part for part in theirs.modules() if isinstance(part, MoreTokens))
    scaled = contents("prompt-tuning", tokens=2)[0]["prompt_embeddings"]
    features.features.data = scaled[None] / model.config.embedding_scale
    for text, adapters in zip(texts, ((theirs,), (theirs, prefix, lora)), strict=True):
        if kind in ("mistral", "gemma2") and prefix in adapters:
            continue  # in the sequence, windows do not count the keys of a prefix
        assert torch.allclose(text, logits(model, ids, *adapters)[:, 2:], atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_two_files_are_one_file_with_the_tokens_of_both(kind: str, tmp_path: Path):
    model = language_model(kind)
    for method, order in (("prompt-tuning", (1, 0)), ("prefix-tuning", (1, 0))):
        several = dress(model, tmp_path / method, (method, method))
        both = logits(model, IDS, *several)
        model.eject_all()
        parts = [contents(method, seed=i, tokens=2 + i)[0]["prompt_embeddings"] for i in order]
        config = contents(method, tokens=5)[1]
        folder = save(tmp_path / f"{method}-1", {"prompt_embeddings": torch.cat(parts)}, config)
        single = refiners.load_adapter(str(folder), model)
        if (method, kind) not in {("prefix-tuning", "mistral"), ("prefix-tuning", "gemma2")}:
            assert torch.allclose(both, logits(model, IDS, single), atol=2e-5), method
        single.eject()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("methods", WORN[:3], ids="+".join)
def test_rows_without_it_are_bit_equal_to_the_bare_model(
    methods: tuple[str, ...], kind: str, tmp_path: Path
):
    model = language_model(kind)
    bare = tokens(model, ROWS)
    adapters = dress(model, tmp_path, methods)
    whole = tokens(model, ROWS)
    mixed = tokens(model, ROWS, conditions={a: Condition(scale=[1, 0, 1]) for a in adapters})
    assert torch.equal(mixed[1].log_probabilities, bare[1].log_probabilities)
    for i in (0, 2):
        ours, theirs = mixed[i].log_probabilities, whole[i].log_probabilities
        assert mixed[i].tokens.tolist() == whole[i].tokens.tolist()
        assert torch.allclose(ours, theirs, atol=1e-5)
        assert not torch.allclose(ours, bare[i].log_probabilities, atol=1e-2)


def test_each_row_may_have_another_adapter(tmp_path: Path):
    model = language_model("gpt2")
    first, second = dress(model, tmp_path, VIRTUAL)
    lora = LanguageLora(key="lora").inject(model)
    rows = [torch.arange(4)] * 3
    scales = {first: [1, 0, 0], second: [0, 1, 0], lora: [0.5, 0.5, 0]}
    mixed = model.score(rows, conditions={a: Condition(scale=s) for a, s in scales.items()})
    half = Condition(scale=0.5)
    alone = [
        model.score(rows[0], conditions={first: Condition(), second: None, lora: half}),
        model.score(rows[0], conditions={first: None, second: Condition(), lora: half}),
        model.score(rows[0], conditions={first: None, second: None, lora: None}),
    ]
    for row, single in zip(mixed, alone, strict=True):
        assert torch.allclose(row.log_probabilities, single.log_probabilities, atol=1e-5)


def test_a_cache_of_the_caller_keeps_the_tokens_and_padding_does_not_count(tmp_path: Path):
    model = language_model("gpt2")
    adapters = dress(model, tmp_path, VIRTUAL)
    scales = {a.scale_key: torch.tensor(1.0) for a in adapters}
    solo = logits(model, IDS, *adapters)
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), IDS], dim=1)
    mask, cache = torch.ones(1, 10).bool(), Cache(10)
    mask[:, :4] = False
    with torch.no_grad():
        for part in (slice(0, 3), slice(3, 7), slice(7, 10)):
            context = {**scales, CACHE: cache, TOKEN_MASK: mask[:, part]}
            last = model.decoder(padded[:, part], context=context)
    assert torch.allclose(last, solo[:, -3:], atol=1e-5)
    assert cache.length == 10


def test_a_prompt_is_read_once_for_each_text(tmp_path: Path):
    model = language_model()
    worn("prompt-tuning", tmp_path, model)
    calls: list[int] = []
    handle = model.decoder.norm.register_forward_hook(lambda *args: calls.append(len(args[1][0])))
    model.generate([IDS[0], IDS[0]], max_new_tokens=4, output="tokens")
    handle.remove()
    assert calls == [2] * 5  # the prompt, and four tokens


def test_the_same_prompt_after_another_adapter_is_a_cold_run(tmp_path: Path):
    model = language_model()
    folders = [published("prefix-tuning", tmp_path / str(i), seed=i) for i in range(2)]
    texts: dict[int | None, str] = {None: model.generate("Once", max_new_tokens=8)}
    for i in (0, 1):
        with refiners.load_adapter(str(folders[i])).on(model):
            texts[i] = model.generate("Once", max_new_tokens=8)
    assert len({*texts.values()}) == 3
    adapter = refiners.load_adapter(str(folders[0]), model)
    other = refiners.load_adapter(str(folders[1]), model).eject()
    assert model.generate("Once", max_new_tokens=8) == texts[0]
    adapter.hotswap(other)
    assert model.generate("Once", max_new_tokens=8) == texts[1]
    adapter.eject()
    assert model.generate("Once", max_new_tokens=8) == texts[None]


def test_learned_tokens_count_against_the_length_of_the_model(tmp_path: Path):
    model = language_model("gpt2")
    first, second = dress(model, tmp_path, VIRTUAL)  # 2 and 3 tokens of 40
    long, in_second = torch.arange(34), Condition(scale=[0, 1])
    assert len(model.generate(long, max_new_tokens=1, output="tokens")) == 1
    for call, match in (
        (lambda: model.generate(long, max_new_tokens=2, output="tokens"), "max_new_tokens=1"),
        (
            lambda: model.generate(torch.arange(35), max_new_tokens=1, output="tokens"),
            "35 tokens, after 5 of",
        ),
        (lambda: model.generate(long, output="tokens"), "256 new ones.*max_new_tokens=1"),
        (lambda: model.score(torch.arange(36)), "36 tokens, after 5 of adapters"),
        (
            lambda: model.score([long, torch.arange(38)], conditions={second: in_second}),
            "38 tokens, after 5 of",
        ),
    ):
        with pytest.raises(GenerationError, match=match):
            call()
    off = {first: Condition(scale=[1, 0]), second: Condition(scale=[1, 0])}
    model.score([torch.arange(34), torch.arange(40)], conditions=off)
    assert len(model.generate(torch.arange(39), max_new_tokens=1, output="tokens",
                              conditions={first: None, second: None})) == 1  # fmt: skip


@pytest.mark.parametrize("method", VIRTUAL)
@pytest.mark.parametrize("scale", [0.5, -1, [1, 0.3], {"decoder.attend.0": 1}, [{"decoder": 1}, 2]])
def test_learned_tokens_are_there_or_not(method: str, scale: Any, tmp_path: Path):
    model = language_model()
    adapter = worn(method, tmp_path, model)
    with pytest.raises(ConditionError, match="learned tokens are"):
        model.score([IDS[0], IDS[0]], conditions={adapter: Condition(scale=scale)})


def test_every_place_of_a_component_is_a_whole(tmp_path: Path):
    model = language_model()
    adapter = worn("prompt-tuning", tmp_path, model)
    scale = Condition(scale=[{"decoder": 1}, 0])
    rows = model.score([IDS[0], IDS[0]], conditions={adapter: scale})
    assert torch.allclose(
        rows[0].log_probabilities, model.score(IDS[0]).log_probabilities, atol=1e-6
    )


def test_a_saved_folder_is_read_again(tmp_path: Path):
    model = language_model()
    for method in VIRTUAL:
        adapter = worn(method, tmp_path / method, model)
        text = logits(model, IDS, adapter)
        adapter.eject()
        (tmp_path / f"{method}-2").mkdir()
        adapter.save(tmp_path / f"{method}-2" / "adapter_model.safetensors")
        again = refiners.load_adapter(str(tmp_path / f"{method}-2"), model)
        assert torch.equal(logits(model, IDS, again), text)
        again.eject()


def test_learned_tokens_can_be_trained(tmp_path: Path):
    model = language_model()
    for adapter in dress(model, tmp_path, VIRTUAL):
        adapter.requires_grad_(True)
    scales = {a.scale_key: torch.tensor(1.0) for a in model.adapters}
    model.decoder(IDS, context=scales).square().mean().backward()
    weights = [weight for adapter in model.adapters for weight in adapter.parameters()]
    assert len(weights) == 5
    assert all(weight.grad is not None and weight.grad.any() for weight in weights)
