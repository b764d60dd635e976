"""Tokenizer folders of every age: read, or refused by the name of what is not known."""

import json

import pytest

from refiners_core.errors import ModelError
from refiners_core.models.clip.tokenizer import ClipTokenizer

from .pipelines import tokenizer

TEXT = "a small cat, it's 12!"


@pytest.fixture
def folder(tmp_path):
    """A folder with the signs of a vocabulary, in which `ca` and `cat` are joined."""
    words = json.loads(tokenizer("<|endoftext|>")._tokenizer.to_str())["model"]["vocab"]
    words |= {"ca": len(words), "cat</w>": len(words) + 1}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    return tmp_path


def write(folder, name, **content):
    (folder / name).write_text(json.dumps(content))


def whole(folder, merges, **model):
    words = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").unlink()
    table = {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": words, "merges": merges}
    write(folder, "tokenizer.json", model=table | model)


def test_pairs_are_read_in_the_forms_of_all_years(folder):
    right = ClipTokenizer.load(folder, 32).tokens(TEXT)
    merges = folder / "merges.txt"
    for text in (
        "#version: 0.2\r\nc a\r\nca t</w>\r\n",
        "c a\nca t</w>",
        '"x#version: 0.2\nc a\nca t</w>',
    ):
        merges.write_bytes(text.encode())
        assert ClipTokenizer.load(folder, 32).tokens(TEXT) == right
    vocab = (folder / "vocab.json").read_text()
    for pairs in (["c a", "ca t</w>"], [["c", "a"], ["ca", "t</w>"]]):
        whole(folder, pairs)
        assert ClipTokenizer.load(folder, 32).tokens(TEXT) == right
        (folder / "vocab.json").write_text(vocab)


def test_special_tokens_are_found_where_older_libraries_wrote_them(folder):
    write(folder, "special_tokens_map.json", pad_token={"content": "!"})
    assert ClipTokenizer.load(folder, 32).padding == 0
    write(folder, "tokenizer_config.json", pad_token="<|endoftext|>")
    assert ClipTokenizer.load(folder, 32).padding == 513


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("added_tokens.json", {"<cat>": 600}),
        ("special_tokens_map.json", {"additional_special_tokens": ["<cat>"]}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"600": {"content": "<cat>"}}}),
    ],
)
def test_words_that_were_added_are_refused_by_name(name, content, folder):
    write(folder, "added_tokens.json", **{"<|endoftext|>": 513})  # which is not new
    ClipTokenizer.load(folder, 32)
    write(folder, name, **content)
    with pytest.raises(ModelError, match="added to its vocabulary: <cat>"):
        ClipTokenizer.load(folder, 32)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"do_lower_case": False}, "do_lower_case = False"),
        ({"padding_side": "left"}, "padding_side = 'left'"),
        ({"tokenizer_class": "T5Tokenizer"}, "tokenizer_class = 'T5Tokenizer'"),
        ({"wobble": 1}, "wobble = 1, which is not a known setting"),
        ({"extra_special_tokens": ["<x>"]}, "extra_special_tokens = "),
    ],
)
def test_settings_that_change_tokens_are_refused_by_name(setting, message, folder):
    write(folder, "tokenizer_config.json", **setting)
    with pytest.raises(ModelError, match=message):
        ClipTokenizer.load(folder, 32)


@pytest.mark.parametrize("model", [{"type": "WordPiece"}, {"dropout": 0.1}, {"wobble": 1}])
def test_another_model_in_one_file_is_refused_by_name(model, folder):
    whole(folder, ["c a", "ca t</w>"], **model)
    with pytest.raises(ModelError, match=f"the tokenizer.json .*{next(iter(model))} = "):
        ClipTokenizer.load(folder, 32)
