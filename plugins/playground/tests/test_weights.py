import json
from importlib.resources import files
from pathlib import Path
from random import Random

from refiners_playground.caption import WORDS, caption
from refiners_playground.config import TEXT_ENCODER
from refiners_playground.random_scene import varied_scene

from refiners_core.models.clip import ClipTokenizer

WEIGHTS = Path(str(files("refiners_playground"))) / "weights"


def test_all_weights_together_are_at_most_15_megabytes():
    sizes = [path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()]
    assert 0 < sum(sizes) <= 15_000_000


def test_every_word_of_a_caption_is_one_token():
    tokenizer = ClipTokenizer.load(WEIGHTS / "tokenizer")
    tokens = {word: tokenizer.tokens(word) for word in WORDS}
    assert {word: ids for word, ids in tokens.items() if len(ids) != 1} == {}
    assert len({ids[0] for ids in tokens.values()}) == len(WORDS)


def test_words_of_no_caption_are_split_into_tokens():
    tokenizer = ClipTokenizer.load(WEIGHTS / "tokenizer")
    assert len(tokenizer.tokens("zebra é 你")) > 3
    assert tokenizer.end not in tokenizer.tokens("zebra é 你")


def test_captions_fit_into_a_prompt():
    random = Random(0)
    tokenizer = ClipTokenizer.load(WEIGHTS / "tokenizer")
    longest = max(len(tokenizer.tokens(caption(varied_scene(random), random))) for _ in range(3000))
    assert longest <= tokenizer.length - 2


def test_the_vocabulary_has_the_published_layout():
    vocabulary = json.loads((WEIGHTS / "tokenizer" / "vocab.json").read_text("utf-8"))
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert vocabulary["<|endoftext|>"] == TEXT_ENCODER.end_token
    assert len(vocabulary) == TEXT_ENCODER.vocabulary


def test_words_of_earlier_releases_keep_their_tokens():
    tokenizer = ClipTokenizer.load(WEIGHTS / "tokenizer")
    assert tokenizer.tokens("a red circle on a blue background") == [
        320,
        604,
        649,
        591,
        320,
        627,
        677,
    ]
    assert min(tokenizer.tokens("crescent face hair")) > tokenizer.end
