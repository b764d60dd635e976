"""Texts equal those that transformers generates, token for token."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import refiners
import torch
import transformers
from transformers import PreTrainedTokenizerFast

from refiners_core.models.decoder import ChatTemplate, load_decoder
from refiners_core.testing import tiny_language_model

from . import decoder_peer
from .decoder_peer import KINDS, WORDS, sampled

MOST = 64
FILTERS = {
    "temperature": 1.3, "top_k": 20, "top_p": 0.8, "min_p": 0.02, "repetition_penalty": 1.2
}  # fmt: skip


@pytest.fixture(scope="module", params=sampled(KINDS))
def pair(request: Any, tmp_path_factory: Any) -> tuple[Any, Any]:
    peer = decoder_peer.peer_of(request.param)
    folder = decoder_peer.publish(peer, tmp_path_factory.mktemp("decoder"))
    return peer, load_decoder(folder)


def prompts() -> list[torch.Tensor]:
    return [torch.randint(0, WORDS, (length,)) for length in (1, 5, 9)]


@torch.no_grad()
def theirs(peer: Any, rows: list[torch.Tensor], **options: Any) -> list[torch.Tensor]:
    """Returns what transformers generates after rows with padding at the left."""
    width = max(map(len, rows))
    ids = torch.stack([torch.cat([row.new_zeros(width - len(row)), row]) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    kwargs = {"max_new_tokens": MOST, "do_sample": False, "pad_token_id": 0, **options}
    return [*peer.generate(ids, attention_mask=mask, **kwargs)[:, width:]]


def equal(ours: list[torch.Tensor], rows: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, rows, strict=True))


def test_greedy_texts_of_a_batch_are_equal_and_need_no_cache(pair: Any):
    peer, model = pair
    rows = prompts()
    ours = model.generate(rows, max_new_tokens=MOST, output="tokens")
    assert equal(ours, theirs(peer, rows))
    whole = torch.cat([rows[2], ours[2]])[None]
    with torch.no_grad():
        assert torch.equal(model.decoder(whole)[0, 8:-1].argmax(-1), ours[2])
    assert len(torch.cat(ours).unique()) > 5  # the text is not one repeated token


def test_drawn_texts_are_equal_for_a_seed(pair: Any):
    # The draw of a row: `multinomial` of its probabilities alone, from a generator of its own seed.
    peer, model = pair
    row = prompts()[1]
    ours = model.generate(row, max_new_tokens=MOST, seed=11, output="tokens", **FILTERS)
    torch.manual_seed(11)
    assert equal([ours], theirs(peer, [row], do_sample=True, **FILTERS))


def test_the_end_and_the_penalty_of_the_publisher_are_followed(tmp_path: Path):
    peer = decoder_peer.peer_of("gpt2")
    rows = prompts()
    penalty = {"repetition_penalty": 1.8}
    end = int(theirs(peer, rows, **penalty)[1][20])
    peer.generation_config = transformers.GenerationConfig(
        eos_token_id=[end, 59], pad_token_id=end, **penalty
    )
    model = load_decoder(decoder_peer.publish(peer, tmp_path))
    assert (model.defaults.ends, model.defaults.repetition_penalty) == ((end, 59), 1.8)
    ours = model.generate(rows, max_new_tokens=MOST, output="tokens")
    # Padding is the end: it counts neither as the end nor as a repetition.
    for row, whole in zip(ours, theirs(peer, rows, pad_token_id=end, **penalty), strict=True):
        assert torch.equal(row, whole[: len(row)])
        assert (whole[len(row) :] == end).all()
        assert len(row) == MOST or int(row[-1]) in (end, 59)
    assert min(map(len, ours)) < MOST
    plain = model.generate(rows, max_new_tokens=MOST, repetition_penalty=1, output="tokens")
    assert not equal(plain, ours)


# --- texts ---

CHATML = (
    "{%- if messages[0]['role'] == 'system' %}\n    {{- '<|im_start|>system\\n' + "
    "messages[0]['content'] + '<|im_end|>\\n' }}\n{%- else %}\n    {{- '<|im_start|>system\\n"
    "Be brief.<|im_end|>\\n' }}\n{%- endif %}\n{%- for message in messages %}\n    {%- if "
    "(message.role == 'user') or (message.role == 'assistant') %}\n        {{- '<|im_start|>' + "
    "message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n    {%- endif %}\n"
    "{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}\n"
)
HEADERS = (
    "{% set ns = namespace(first=true) %}{% for message in messages %}{% set content = "
    "'<|start|>' + message['role'] + '<|stop|>\n\n' + message['content'] | trim + '<|eot|>' %}"
    "{% if ns.first %}{% set content = bos_token + content %}{% set ns.first = false %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|stop|>\n\n' }}"
    "{% endif %}"
)
TURNS = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 "
    "== 0) %}{{ raise_exception('roles alternate') }}{% endif %}{% set role = 'model' if "
    "message['role'] == 'assistant' else message['role'] %}{{ '<turn>' + role + '\n' + "
    "message['content'] | trim + '<end>\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{'<turn>model\n'}}{% endif %}"
)
BRACKETS = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
LOOSE = (
    "{% for m in messages %}\n  {# a note #}\n  {{ m | tojson(indent=1) }} {{ m.role | title }}\n"
    "  {%- if loop.last %}\n    !\n  {% endif %}\n{% endfor %}\n\n"
)
TEMPLATES = {
    "ChatML": CHATML, "headers": HEADERS, "turns": TURNS, "brackets": BRACKETS, "loose": LOOSE,
}  # fmt: skip
USER, REPLY = {"role": "user", "content": " Hé <b>? "}, {"role": "assistant", "content": " So, "}
CHATS = {
    "one": [USER],
    "three": [USER, REPLY, USER],
    "continued": [USER, {**REPLY, "content": "So"}],
    "continued after a blank": [USER, {**REPLY, "content": "So, "}],
}


@pytest.fixture(scope="module")
def their_tokenizer(tmp_path_factory: Any) -> Any:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer = tiny_language_model().tokenizer
    assert tokenizer is not None
    tokenizer.model.save(str(path))
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path), bos_token="<|startoftext|>", eos_token="<|endoftext|>"
    )


@pytest.mark.parametrize(
    ("name", "chat"),
    # What is written as JSON does not end with the words of the message.
    [
        (name, chat)
        for name, chat in product(TEMPLATES, CHATS)
        if name != "loose" or not chat.startswith("continued")
    ],
)
def test_conversations_are_written_as_transformers_writes_them(
    their_tokenizer: Any, name: str, chat: str
):
    messages, is_continued = CHATS[chat], chat.startswith("continued")
    their_tokenizer.chat_template = TEMPLATES[name]
    expected = their_tokenizer.apply_chat_template(
        messages,
        tokenize=False,
        add_generation_prompt=not is_continued,
        continue_final_message=is_continued,
    )
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    assert ChatTemplate(TEMPLATES[name]).rendered(messages, special) == expected


def test_texts_are_tokenised_and_read_from_the_folder(their_tokenizer: Any, tmp_path: Path):
    their_tokenizer.chat_template = HEADERS
    peer = decoder_peer.peer_of("llama", vocab_size=258)
    folder = decoder_peer.publish(peer, tmp_path)
    their_tokenizer.save_pretrained(folder)
    model = load_decoder(folder)
    assert model.tokenizer is not None
    for text in ("a cat", "停 é😀 <|endoftext|> x", "\n\n  "):
        assert model.tokenizer.tokens(text) == their_tokenizer(text).input_ids
        ids = their_tokenizer(text).input_ids
        assert model.tokenizer.text(ids) == their_tokenizer.decode(ids, skip_special_tokens=True)
    theirs_of_chat = their_tokenizer.apply_chat_template([USER], add_generation_prompt=True)
    assert model.tokenizer.chat_tokens([USER]) == theirs_of_chat["input_ids"]
    assert "".join(model.stream("a cat", max_new_tokens=MOST)) == model.generate(
        "a cat", max_new_tokens=MOST
    )
    named = refiners.load_model(folder)
    assert named.base == "llama"
    assert named.generate("a cat", max_new_tokens=4) == model.generate("a cat", max_new_tokens=4)
    assert set(named.origin(named).files) >= {"config.json", "model.safetensors", "tokenizer.json"}
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(Exception, match=r"tokenizer\.json is not a tokenizer"):
        load_decoder(folder)
    (folder / "tokenizer.json").unlink()
    assert load_decoder(folder).tokenizer is None
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 258
