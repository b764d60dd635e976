"""Writes the tokenizer of the writer and its sizes; every word of its texts is one token.

The vocabulary has all bytes, the merges in order, then the special tokens, so any text can be
encoded. A word has three tokens at most: at the beginning of a text, capitalised, and after a
space.
"""

import json
from collections import Counter
from pathlib import Path
from random import Random

from refiners_playground.description import ARCHAIC, PLAIN, STORY, Sentence
from refiners_playground.request import SYSTEM, changed_request, random_request
from run import WEIGHTS
from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

FOLDER = WEIGHTS / "writer"
BEGIN, END = "<|begin|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    BEGIN + "{% for message in messages %}"
    "{{ '<|' + message.role + '|>' + message.content | trim }}"
    "{% if message.role == 'assistant' %}" + END + "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WIDTH, INNER, LAYERS, HEADS, PLACES = 128, 384, 3, 4, 128
SAMPLES, RARE = 20_000, 8
"""The number of requests whose words are counted, and the count below which a word is split."""


def texts(random: Random) -> list[str]:
    """Returns requests and answers in all styles."""
    sentences = [*SYSTEM]
    for _ in range(SAMPLES):
        request = random_request(random)
        sentences.append(request.text)
        if len(request.answer.things) == 1:
            sentences.append(changed_request(request.answer, random).text)
        for opening in (PLAIN, ARCHAIC, STORY):
            sentences += [str(Sentence(request.answer, opening, first)) for first in (False, True)]
    return sentences


def build_tokenizer() -> Tokenizer:
    """Learns merges until every word is one token."""
    split = ByteLevel(add_prefix_space=False)
    pieces = Counter(
        piece for text in texts(Random(0)) for piece, _ in split.pre_tokenize_str(text)
    )
    words = sorted(piece for piece, count in pieces.items() if count >= RARE)
    tokenizer = Tokenizer(BPE())
    trainer = BpeTrainer(
        vocab_size=10_000,
        min_frequency=1,
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token) for token in (BEGIN, END, *ROLES)])
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    return tokenizer


def write(folder: Path) -> int:
    """Writes the tokenizer and the configurations; returns the number of tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    begin, end = tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(END)
    special = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": end}
    tables = {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BEGIN,
            "eos_token": END,
            "pad_token": END,
            "model_max_length": PLACES,
            "chat_template": TEMPLATE,
        },
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": tokenizer.get_vocab_size(with_added_tokens=True),
            "hidden_size": WIDTH,
            "intermediate_size": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS // 2,
            "max_position_embeddings": PLACES,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10_000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": True,
            "torch_dtype": "float16",
            **special,
        },
        "generation_config.json": special,
    }
    for name, table in tables.items():
        (folder / name).write_text(json.dumps(table, indent=2) + "\n", "utf-8")
    return tokenizer.get_vocab_size(with_added_tokens=True)


if __name__ == "__main__":
    print(f"{write(FOLDER)} tokens in {FOLDER}")
