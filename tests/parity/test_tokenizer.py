import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from refiners_core.models.clip.tokenizer import ClipTokenizer, PromptWarning

TEXT = (
    "a photo of a red circle on the left of two blue squares, it's 2024! the cat's café isn't far"
)
PROMPTS = [
    "a red circle",
    "  A  Red\n\tCIRCLE  ",
    "",
    "it's 2024!!! isn't it? we'll see",
    "naïve café — 你好 🙂 ﬁn",
    "<|endoftext|> between <|startoftext|>",
    "under_score and-dash (word:1.2)",
    "Ǆ İstanbul ß e\u0301",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer as published: all bytes, their word endings, a few dozen learned merges."""
    folder = tmp_path_factory.mktemp("tokenizer")
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trained.train_from_iterator(
        [TEXT] * 3,
        trainers.BpeTrainer(vocab_size=200, end_of_word_suffix="</w>", show_progress=False),
    )
    merges = [
        pair
        for pair in json.loads(trained.to_str())["model"]["merges"]
        if all(c in signs for part in pair for c in part.replace("</w>", ""))
    ]
    words = [*signs, *(s + "</w>" for s in signs), *("".join(pair) for pair in merges)]
    words = [*dict.fromkeys(words), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 24}))
    return folder


@pytest.mark.parametrize("padding", ["<|endoftext|>", "!"])
def test_tokens_equal_those_of_transformers(folder, padding):
    config = {"model_max_length": 24, "pad_token": {"content": padding, "__type": "AddedToken"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    ours = ClipTokenizer.load(folder)
    vocab = json.loads((folder / "vocab.json").read_text())
    merges = [
        tuple(line.split(" ")) for line in (folder / "merges.txt").read_text().splitlines()[1:]
    ]
    theirs = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=24, pad_token=padding)
    for prompt in [*PROMPTS, TEXT]:
        assert ours.tokens(prompt) == theirs(prompt, add_special_tokens=False).input_ids
    expected = theirs(PROMPTS, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with pytest.warns(PromptWarning):
        assert ours(PROMPTS).equal(expected)
