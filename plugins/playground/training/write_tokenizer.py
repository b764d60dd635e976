"""Adds words to the tokenizer, which has CLIP's published format; every word of a caption is one
token.

The vocabulary began with CLIP's layout: all bytes, all bytes that end a word, the merges in order,
then the two special tokens. Words that came later have their merges and tokens at the end, so every
older token keeps its id. Any text can be encoded; other words are split into pieces.
"""

import json
from pathlib import Path

from refiners_playground.caption import WORDS
from run import WEIGHTS
from tokenizers.pre_tokenizers import ByteLevel

from refiners_core.models.clip import ClipTokenizer

END_OF_WORD = "</w>"
MARKS = ("<|startoftext|>", "<|endoftext|>")
LENGTH = 32
"""Tokens in a prompt; the longest caption has 22."""


def read(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Returns the vocabulary and the merges of a folder, or those of single letters."""
    if not (folder / "vocab.json").exists():
        letters = sorted(ByteLevel.alphabet())
        tokens = [*letters, *(letter + END_OF_WORD for letter in letters), *MARKS]
        return {token: index for index, token in enumerate(tokens)}, []
    vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
    lines = (folder / "merges.txt").read_text("utf-8").splitlines()[1:]
    return vocabulary, [(left, right) for left, right in (line.split() for line in lines)]


def extend(vocabulary: dict[str, int], merges: list[tuple[str, str]], words: list[str]) -> None:
    """Appends tokens and merges until every word is one token.

    A new merge ranks below all older ones, so words that were one token stay it.
    """
    for word in words:
        while True:
            tokenizer = ClipTokenizer(vocabulary, merges, length=LENGTH)
            pieces = [tokenizer.text_of(token) for token in tokenizer.tokens(word)]
            if len(pieces) == 1:
                break
            merges.append((pieces[0], pieces[1]))
            vocabulary.setdefault(pieces[0] + pieces[1], len(vocabulary))


def write(folder: Path) -> int:
    """Writes vocab.json, merges.txt and tokenizer_config.json; returns the number of tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = read(folder)
    extend(vocabulary, merges, sorted(word for word in WORDS if word.isalpha()))
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
