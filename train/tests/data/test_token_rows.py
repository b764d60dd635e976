"""Texts as tokens: one begin, one end, and only what is to be learnt."""

import json

import datasets
import pytest
import torch
from refiners_train.data.data_error import DataError
from refiners_train.data.example import TextExample
from refiners_train.data.text_source import Texts, open_texts
from refiners_train.data.token_rows import IGNORED, TokenRows

from refiners_core.models.decoder import ChatTemplate
from refiners_core.testing import tiny_language_model

START, END = 256, 257
CHAT = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "ho"},
    {"role": "user", "content": "so"},
    {"role": "assistant", "content": "no"},
]


def rows_of(*rows, model=None, **options) -> TokenRows:
    return TokenRows(Texts(rows, "x", "rows"), model or tiny_language_model(), **options)


def learnt(model, batch, row: int = 0) -> str:
    return model.tokenizer.text([token for token in batch.labels[row].tolist() if token >= 0])


def test_a_text_has_one_begin_and_one_end():
    batch = rows_of({"text": "abc"}).batch([0], 0)
    assert batch.ids[0].tolist()[::4] == [START, END]
    assert batch.ids.shape == (1, 5)
    assert torch.equal(batch.labels, batch.ids)


def test_padding_is_not_learnt():
    batch = rows_of({"text": "abcdef"}, {"text": "a"}).batch([0, 1], 0)
    assert batch.ids.shape == (2, 8)
    assert batch.labels[1].tolist() == [*batch.ids[1, :3].tolist(), *[IGNORED] * 5]


@pytest.mark.parametrize("only", [True, False])
def test_completions_alone_are_learnt_if_asked(only):
    model = tiny_language_model()
    rows = rows_of({"prompt": "ask ", "completion": "yes"}, model=model, completions_only=only)
    batch = rows.batch([0], 0)
    assert learnt(model, batch) == ("yes" if only else "ask yes")
    assert batch.labels[0, -1] == END


def test_the_tokens_of_a_prompt_are_those_of_a_generation():
    model = tiny_language_model()
    model.tokenizer.model.add_tokens(["kc"])  # joins the end of the prompt and the completion
    batch = rows_of({"prompt": "ask", "completion": "c"}, model=model, completions_only=True)
    ids = batch.batch([0], 0).ids[0].tolist()
    assert ids == [*model.tokenizer.tokens("ask"), model.tokenizer.tokens("c")[1], END]


@pytest.mark.parametrize("only", [True, False])
def test_the_answers_of_a_conversation_are_learnt_as_the_template_writes_them(only):
    model = tiny_language_model()
    batch = rows_of({"messages": CHAT}, model=model, completions_only=only).batch([0], 0)
    text = "<user> hi\n<assistant> ho\n<user> so\n<assistant> no\n"
    assert learnt(model, batch) == ("ho\nno\n" if only else text)
    ids = batch.ids[0].tolist()
    assert ids == [START, *model.tokenizer.tokens(text)[1:]]
    assert ids.count(START) == 1


def test_a_template_that_rewrites_earlier_messages_is_refused():
    model = tiny_language_model()
    source = "{% for m in messages %}{{ m.content if loop.last else '-' }}{% endfor %}"
    model.tokenizer.chat = ChatTemplate(source)  # type: ignore[misc]
    with pytest.raises(DataError, match="differently"):
        rows_of({"messages": CHAT}, model=model, completions_only=True).batch([0], 0)


def test_long_texts_are_cut_at_the_end():
    batch = rows_of({"text": "abcdef"}, max_tokens=4).batch([0], 0)
    assert batch.ids[0].tolist() == tiny_language_model().tokenizer.tokens("abc")


def test_all_rows_without_words_are_named():
    rows = [{"text": "a"}, {"word": "b"}, {"prompt": "c"}, {"messages": CHAT[:1]}]
    with pytest.raises(DataError) as refusal:
        Texts(rows, "x", "rows")
    assert "row 1: it has word" in str(refusal.value)
    assert "row 2: its prompt or its completion is missing" in str(refusal.value)
    assert "row 3: its messages have no answer" in str(refusal.value)


def test_texts_come_from_files_lines_and_datasets(tmp_path):
    (tmp_path / "texts").mkdir()
    for name in "ba":
        (tmp_path / f"texts/{name}.txt").write_text(name)
    rows = [{"words": "a"}, {"words": "b"}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "rows")
    columns = {"text": "words"}
    for source in (
        open_texts(f"folder:{tmp_path}/texts"),
        open_texts(f"jsonl:{tmp_path}/x.jsonl", columns=columns),
        open_texts(f"hf:{tmp_path}/rows", columns=columns),
    ):
        assert [source.example(i, 0) for i in range(2)] == [TextExample("a"), TextExample("b")]
        assert source.fingerprint


def test_a_line_that_is_not_json_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(DataError, match=r"x\.jsonl:2 is not JSON"):
        open_texts(f"jsonl:{tmp_path}/x.jsonl")
