"""Writes the tokenizer in CLIP's published format; every word of a caption is one token.

The vocabulary has CLIP's layout: all bytes, all bytes that end a word, the merges in order, then
the two special tokens. Any text can be encoded; other words are split into pieces.
"""

import json
from pathlib import Path

from refiners_playground.caption import WORDS
from run import WEIGHTS
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

END_OF_WORD = "</w>"
MARKS = ("<|startoftext|>", "<|endoftext|>")
LENGTH = 32
"""Tokens in a prompt; the longest caption has 20."""


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Learns merges until every word is one token."""
    tokenizer = Tokenizer(BPE(end_of_word_suffix=END_OF_WORD))
    trainer = BpeTrainer(
        vocab_size=10_000, min_frequency=1, end_of_word_suffix=END_OF_WORD, show_progress=False
    )
    tokenizer.train_from_iterator(words, trainer)
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


def write(folder: Path) -> int:
    """Writes vocab.json, merges.txt and tokenizer_config.json; returns the number of tokens."""
    letters = sorted(ByteLevel.alphabet())
    merges = learn_merges(sorted(word for word in WORDS if word.isalpha()))
    tokens = [
        *letters,
        *(letter + END_OF_WORD for letter in letters),
        *(left + right for left, right in merges),
        *MARKS,
    ]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(
        json.dumps(vocabulary, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": MARKS[0],
        "eos_token": MARKS[1],
        "pad_token": MARKS[1],
        "model_max_length": LENGTH,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    return len(vocabulary)


if __name__ == "__main__":
    print(f"{write(WEIGHTS / 'tokenizer')} tokens in {WEIGHTS / 'tokenizer'}")
