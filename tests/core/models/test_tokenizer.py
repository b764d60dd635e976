import json
import warnings

import pytest

from refiners_core.errors import ModelError
from refiners_core.models.clip.prompt import parse_weights
from refiners_core.models.clip.tokenizer import ClipTokenizer, PromptWarning

START, END = "<|startoftext|>", "<|endoftext|>"


@pytest.fixture
def folder(tmp_path, vocabulary):
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    return tmp_path


def test_a_prompt_is_framed_and_filled_up(vocabulary):
    tokenizer = ClipTokenizer(vocabulary, [], length=6)
    end = vocabulary[END]
    letters = [vocabulary["h"], vocabulary["i</w>"]]
    assert tokenizer(["Hi", ""]).tolist() == [
        [vocabulary[START], *letters, end, end, end],
        [vocabulary[START], end, end, end, end, end],
    ]


def test_padding_may_be_another_token(vocabulary):
    tokenizer = ClipTokenizer(vocabulary, [], length=4, padding="!")
    assert tokenizer([""])[0].tolist()[2:] == [vocabulary["!"]] * 2


def test_merges_join_letters(vocabulary):
    words = vocabulary | {"hi</w>": 514}
    assert ClipTokenizer(words, [("h", "i</w>")], length=9).tokens("hi") == [514]


def test_a_too_long_prompt_is_cut_off_with_a_warning(vocabulary):
    tokenizer = ClipTokenizer(vocabulary, [], length=6)
    with pytest.warns(PromptWarning, match="7 tokens, 3 more than the 4 that are read.*'fun'"):
        row = tokenizer(["cool fun"])[0]
    assert row.tolist()[-1] == vocabulary[END]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer(["cool"])


def test_the_length_is_that_of_the_folder_or_else_of_the_text_encoder(folder):
    assert ClipTokenizer.load(folder, length=9).length == 9
    config = {"model_max_length": 5, "pad_token": {"content": "!"}, "bos_token": START}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = ClipTokenizer.load(folder, length=9)
    assert (loaded.length, loaded.padding, loaded.start) == (5, 0, 512)
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    with pytest.raises(ModelError, match="does not name the length of a prompt"):
        ClipTokenizer.load(folder)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_folder_without_its_files_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"has no readable tokenizer.*{name}"):
        ClipTokenizer.load(folder, length=9)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", "{"),
        ("vocab.json", "3"),
        ("merges.txt", "one two three\n"),
        ("merges.txt", "h zz\n"),
    ],
)
def test_a_broken_file_is_refused(folder, name, content):
    (folder / name).write_text(content)
    with pytest.raises(ModelError):
        ClipTokenizer.load(folder, length=9)


def test_special_tokens_must_be_known(vocabulary):
    with pytest.raises(ModelError, match=r"514 tokens has no '\[PAD\]'"):
        ClipTokenizer(vocabulary, [], length=9, padding="[PAD]")
    with pytest.raises(ModelError, match="no room for a word"):
        ClipTokenizer(vocabulary, [], length=2)


# --- long and stressed prompts -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a red circle", [("a red circle", 1)]),
        ("", []),
        ("a (red:1.5) circle", [("a ", 1), ("red", 1.5), (" circle", 1)]),
        ("(red: .5)", [("red", 0.5)]),
        ("((red:2) circle:1.5)", [("red", 3), (" circle", 1.5)]),
        ("a (red) [circle]", [("a (red) [circle]", 1)]),
        ("a (ratio 16:wide)", [("a (ratio 16:wide)", 1)]),
        (r"a \(red:1.5\)", [("a (red:1.5)", 1)]),
        (r"(\(red\):1.5)", [("(red)", 1.5)]),
        (r"a\b \\", [("a\\b \\", 1)]),
        ("(red:1.5", [("(red:1.5", 1)]),
        ("red:1.5)", [("red:1.5)", 1)]),
        ("(red:-1)", [("(red:-1)", 1)]),
    ],
)
def test_words_of_a_prompt_have_weights(prompt, parts):
    assert parse_weights(prompt) == parts


def test_a_long_prompt_is_read_in_windows_that_end_where_words_do(vocabulary):
    tokenizer = ClipTokenizer(vocabulary, [], length=7)
    tokens, weights = tokenizer.windows("cool (fun:2) extraordinary")
    end = vocabulary[END]
    letters = [
        ["c", "o", "o", "l</w>"],
        ["f", "u", "n</w>"],
        ["e", "x", "t", "r", "a"],
        ["o", "r", "d", "i", "n"],
        ["a", "r", "y</w>"],
    ]
    expected = [
        [vocabulary[START], *(vocabulary[letter] for letter in word), end] for word in letters
    ]
    assert tokens.tolist() == [row + [end] * (7 - len(row)) for row in expected]
    assert weights[1].tolist() == [1, 2, 2, 2, 1, 1, 1]
    assert weights[[0, 2, 3, 4]].eq(1).all()


def test_a_short_prompt_is_one_window_as_ever(vocabulary):
    tokenizer = ClipTokenizer(vocabulary, [], length=9)
    for prompt in ("", "cool fun"):
        assert tokenizer.windows(prompt)[0].equal(tokenizer([prompt]))


# --- words of adapters ---------------------------------------------------------------------------


def test_a_word_is_found_whole_in_any_case(vocabulary):
    tokenizer = ClipTokenizer(vocabulary, [], length=40)
    words = {"cat": 2, "cat2": 1, "<cat>": 12, "<cat": 1}
    taught = tokenizer.with_words(words)
    cat, cat2, bracketed, half = [-1, -2], [-3], [*range(-4, -16, -1)], [-16]
    plain = tokenizer.tokens
    for text, expected in {
        "cat": cat,
        "a CAT, cat2": [*plain("a"), *cat, *plain(","), *cat2],
        "cats concat cat3 _cat": plain("cats concat cat3 _cat"),
        "<cat><cat>": [*bracketed, *bracketed],
        "<cat, x<cat>x": [*half, *plain(","), *plain("x"), *bracketed, *plain("x")],
    }.items():
        assert taught.tokens(text) == expected, text
    assert tokenizer.with_words({"cat": [-7, -9]}).tokens("cat") == [-7, -9]


def test_the_tokens_of_a_word_stay_together(vocabulary):
    tokenizer = ClipTokenizer(vocabulary, [], length=8).with_words({"<cat>": 4, "<long>": 9})
    rows = tokenizer.windows("a b <cat> c (<cat>:2) <long>")[0].tolist()
    kept = [
        [token for token in row if token not in (tokenizer.start, tokenizer.end)] for row in rows
    ]
    a, b, c = (vocabulary[f"{letter}</w>"] for letter in "abc")
    cat = [-1, -2, -3, -4]
    long = [*range(-5, -14, -1)]
    assert kept == [[a, b, *cat], [c, *cat], long[:6], long[6:]]
    with pytest.warns(PromptWarning, match="this is cut off: 'c <cat>'"):
        tokenizer(["a b <cat> c <cat>"])
