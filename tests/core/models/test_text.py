"""Generation of text: prompts, draws, stops, pieces of a stream, conversations and wrong uses."""

import json
import random

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from torch import nn

from refiners_core import Adapter, Chain, Condition, Lambda, Multiply, Sum, When
from refiners_core.errors import ConditionError, GenerationError, ModelError, PlanError
from refiners_core.models.decoder import (
    ChatTemplate,
    LanguageModel,
    Sampling,
    TextStream,
    TextTokenizer,
)
from refiners_core.testing import tiny_language_model


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_language_model(ends=())


# --- rows of a batch ---


def test_a_row_is_the_same_alone_and_beside_others(model):
    options = {"max_new_tokens": 12, "temperature": 1.0, "output": "tokens"}
    alone = model.generate("the cat", seed=5, **options)
    others = ["a", "a much longer prompt than the cat"]
    for prompts, seeds in (
        (["the cat", *others], [5, 1, 2]),
        ([*others, "the cat"], [8, 9, 5]),
        (["a", "the cat"], [5, 5]),
    ):
        rows = model.generate(prompts, seed=seeds, **options)
        assert torch.equal(rows[prompts.index("the cat")], alone)
    assert torch.equal(model.generate("the cat", count=3, seed=4, **options)[1], alone)
    assert not torch.equal(model.generate("the cat", seed=6, **options), alone)


def test_a_row_that_ends_keeps_its_end_and_disturbs_nobody(model):
    prompts = ["one", "another prompt", "third"]
    whole = model.generate(prompts, max_new_tokens=16, output="tokens")
    end = int(whole[0][3])
    ending = LanguageModel(model.decoder, model.tokenizer, defaults=type(model.defaults)((end,)))
    rows = ending.generate(prompts, max_new_tokens=16, output="tokens")
    for row, full in zip(rows, whole, strict=True):
        places = (full == end).nonzero()
        length = int(places[0]) + 1 if len(places) else 16
        assert torch.equal(row, full[:length])
    # Draws of the other rows do not depend on it.
    drawn = {"max_new_tokens": 16, "temperature": 1.0, "seed": 3, "output": "tokens"}
    before, after = model.generate(prompts, **drawn), ending.generate(prompts, **drawn)
    assert all(torch.equal(a[: len(b)], b) for a, b in zip(before, after, strict=True))


def test_a_penalty_counts_a_token_once_and_no_padding():
    logits = torch.tensor([[2.0, -2.0, 1.0, -1.0]])
    seen = torch.tensor([[True, True, False, False]])
    penalised = Sampling(repetition_penalty=2.0).penalised(logits, seen)
    assert penalised.tolist() == [[1.0, -4.0, 1.0, -1.0]]
    options = {"max_new_tokens": 8, "repetition_penalty": 5.0, "output": "tokens"}
    first = int(tiny_language_model(ends=()).generate("b", **options)[0])
    padded = tiny_language_model(ends=(), padding=first)
    rows = padded.generate(["b", "a longer prompt"], **options)
    assert torch.equal(rows[0], padded.generate("b", **options))


def test_filters_leave_the_likeliest():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]])  # probabilities 0.64, 0.24, 0.09, 0.03

    def left(**filters):
        return Sampling(temperature=1.0, **filters).filtered(logits).isfinite().sum().item()

    assert [left(top_k=k) for k in (1, 3, 9)] == [1, 3, 4]
    assert [left(top_p=p) for p in (0.0, 0.5, 0.65, 0.9, 1.0)] == [1, 1, 2, 3, 4]
    assert [left(min_p=p) for p in (1.0, 0.3, 0.1, 0.0)] == [1, 2, 3, 4]


# --- pieces ---


def byte_fallback() -> TextTokenizer:
    """A tokenizer in the manner of Gemma: words, and single bytes for all else."""
    words = {"a": 0, "▁": 1, "b": 2, **{f"<0x{i:02X}>": 3 + i for i in range(256)}}
    model = Tokenizer(models.BPE(words, [], byte_fallback=True))
    model.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return TextTokenizer(model)


@pytest.mark.parametrize("kind", ["byte level", "byte fallback"])
def test_pieces_are_together_the_text_of_all_tokens(kind, model):
    tokenizer = model.tokenizer if kind == "byte level" else byte_fallback()
    source = random.Random(0)
    for _ in range(300):
        letters = [source.choice(["a", "é", "😀", "停", "�", "\xff", "b"]) for _ in range(6)]
        data = "".join(letters).encode()
        data = data[source.randrange(3) : len(data) - source.randrange(3)]  # characters cut apart
        if kind == "byte level":
            names = [tokenizer.model.id_to_token(i) for i in range(256)]
            signs = dict(zip(_bytes_in_order(), names, strict=True))
            tokens = [names.index(signs[byte]) for byte in data]
        else:
            tokens = [0 if byte == 97 else 3 + byte for byte in data]
        stream = TextStream(tokenizer)
        pieces = [stream.push(token) for token in tokens] + [stream.finish()]
        assert "".join(pieces) == stream.text == tokenizer.text(tokens)


def _bytes_in_order() -> list[int]:
    """Returns the bytes in the order of their signs in the alphabet of byte-level tokenizers."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    signs = {byte: chr(byte) for byte in plain}
    signs |= {byte: chr(256 + i) for i, byte in enumerate(others)}
    return sorted(range(256), key=lambda byte: signs[byte])


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("xabcab", ["ab"], "x"),
        ("x停y", ["停"], "x"),
        ("one two", ["two", "e t"], "on"),  # the earliest place counts
        ("aaab", ["aab"], "a"),
        ("hell", ["hello"], "hell"),  # what may become a stop is written at the end
        ("ab", ["b"], "a"),
        ("abc", ["c", "bc"], "a"),
    ],
)
def test_a_stop_ends_the_text_wherever_its_tokens_begin(model, text, stops, expected):
    tokenizer = model.tokenizer
    stream = TextStream(tokenizer, stops)
    pieces = []
    for token in tokenizer.tokens(text)[1:]:
        pieces.append(stream.push(token))
        assert not any(stop in "".join(pieces) for stop in stops)
        if stream.is_stopped:
            break
    assert "".join([*pieces, stream.finish()]) == stream.text == expected


def test_a_stream_has_the_text_of_generate(model):
    options = {"max_new_tokens": 40, "temperature": 1.0, "seed": 2}
    text = model.generate("a cat", **options)
    assert "".join(model.stream("a cat", **options)) == text
    prompts = ["a cat", "another longer prompt"]
    rows = [*zip(*model.stream(prompts, **options), strict=True)]
    assert ["".join(row) for row in rows] == model.generate(prompts, **options)
    stop = text[5:7]
    stopped = model.generate("a cat", stop=["never, never", stop], **options)
    assert stopped == text[: text.index(stop)]
    assert "".join(model.stream("a cat", stop=stop, **options)) == stopped


def test_an_adapter_cannot_change_while_a_stream_is_running(model):
    stream = model.stream("a cat", max_new_tokens=20)
    next(stream)
    with pytest.raises(PlanError, match="running"):
        Louder().inject(model)
    stream.close()
    Louder().inject(model).eject()


def test_a_callback_ends_a_generation(model):
    steps = []

    def callback(step, tokens):
        steps.append((step, tuple(tokens.shape)))
        return step < 2

    result = model.generate("a", max_new_tokens=9, callback=callback, output="scores")
    assert steps == [(0, (1,)), (1, (1,)), (2, (1,))]
    assert (len(result.tokens), result.ending) == (3, "callback")


# --- probabilities ---


def test_scores_are_the_probabilities_of_the_model(model):
    result = model.generate("a cat", max_new_tokens=6, repetition_penalty=1.5, output="scores")
    ids = torch.tensor([*model.tokenizer.tokens("a cat"), *result.tokens.tolist()])
    whole = model.score(ids)
    assert torch.allclose(whole.log_probabilities[-6:], result.log_probabilities, atol=1e-4)
    assert (result.ending, result.text) == ("length", model.tokenizer.text(result.tokens.tolist()))
    with torch.no_grad():
        logits = model.decoder(ids[None])[0].log_softmax(-1)
    expected = [logits[i, token] for i, token in enumerate(ids[1:])]
    assert torch.allclose(whole.log_probabilities, torch.stack(expected), atol=1e-5)
    assert whole.perplexity == pytest.approx(float((-torch.stack(expected).mean()).exp()), 1e-5)
    texts = ["a cat", "a much longer text"]
    for text, score in zip(texts, model.score(texts), strict=True):
        assert torch.allclose(
            score.log_probabilities, model.score(text).log_probabilities, atol=1e-5
        )


# --- adapters ---


class Louder(Adapter):
    """Adds a random change to the head, by its scale and its condition."""

    takes_condition = True
    needs_condition = False

    def edits(self, model):
        def beside(inner: nn.Module, seat) -> nn.Module:
            torch.manual_seed(1)
            change = self.layer(seat, lambda: nn.Linear(16, 258))
            return Sum(inner, When(self.scale_key, change, Multiply(self.scale_key)))

        return model.slot("decoder.head").wrap(beside)

    def encode(self, value, request):
        return {self.context_key("tokens"): {"cond": torch.tensor([[float(value)]])}}


def test_conditions_scale_an_adapter_and_leave_it_out(model):
    options = {"max_new_tokens": 8, "output": "tokens"}
    bare = model.generate("a cat", **options)
    with Louder().on(model) as louder:
        assert not torch.equal(model.generate("a cat", **options), bare)
        for condition in (None, Condition(scale=0)):
            assert torch.equal(
                model.generate("a cat", conditions={louder: condition}, **options), bare
            )
        rows = model.generate(
            ["a cat", "a cat"], conditions={louder: Condition(1.0, scale=[0, 4])}, **options
        )
        assert torch.equal(rows[0], bare)
        assert not torch.equal(rows[1], bare)
        for condition in (Condition(scale=lambda p: p), Condition(end=0.5), Condition(mask=1)):
            with pytest.raises(ConditionError):
                model.check("a", conditions={louder: condition})
        assert model.score("a cat").total != model.score("a cat", conditions={louder: None}).total
    assert torch.equal(model.generate("a cat", **options), bare)


# --- conversations ---


def test_a_conversation_is_tokenised_as_its_template_writes_it(model):
    messages = [{"role": "user", "content": "hi <|startoftext|>"}]
    ids = model.tokenizer.chat_tokens(messages)
    begin = model.config.begin
    assert ids.count(begin) == 2  # the template's own, and the user's words as they are
    assert ids[0] == begin
    assert model.tokenizer.tokens("hi").count(begin) == 1
    assert model.generate(messages, max_new_tokens=3) == model.generate(
        torch.tensor(ids), max_new_tokens=3
    )
    several = model.generate([messages, messages], max_new_tokens=3)
    assert several == [model.generate(messages, max_new_tokens=3)] * 2


TRIMMED = (
    "{%- for m in messages %}\n    {#- a note -#}\n<{{ m.role }}> {{ m.content | trim }} \n"
    "{% endfor %}\n{% if add_generation_prompt %}<assistant>\n\n{% endif %}\n"
)


def test_blank_space_in_templates_and_answers_that_are_continued():
    chat = ChatTemplate(TRIMMED)
    user = {"role": "user", "content": "hi"}
    assert chat.rendered([user]) == "<user> hi \n<assistant>\n\n"
    answer = {"role": "assistant", "content": " Well, "}
    assert chat.rendered([user, answer]).endswith("<assistant> Well,")
    whole = ChatTemplate(TRIMMED.replace(" | trim", ""))
    assert whole.rendered([user, answer]).endswith("<assistant>  Well, ")
    with pytest.raises(GenerationError, match="does not write the last message"):
        ChatTemplate("hi").rendered([user, answer])


def test_templates_are_read_from_a_folder(tmp_path):
    settings = {"chat_template": [{"name": "default", "template": "one"}, {"name": "rag"}]}
    assert ChatTemplate.load(tmp_path, settings).source == "one"
    assert ChatTemplate.load(tmp_path, {"chat_template": "two"}).source == "two"
    assert ChatTemplate.load(tmp_path, {}) is None
    (tmp_path / "chat_template.jinja").write_text("three")
    assert ChatTemplate.load(tmp_path, settings).source == "three"


def test_templates_have_what_releases_use_and_no_more():
    source = (
        "{% for m in messages %}{% generation %}{{ m | tojson }}{% endgeneration %}"
        "{% if loop.first %}{% break %}{% endif %}{% endfor %}"
        "{{ strftime_now('%Y') | length }}{{ eos }}"
    )
    message = {"role": "user", "content": "<é>"}
    rendered = ChatTemplate(source).rendered([message, message], {"eos": "!"})
    assert rendered == json.dumps(message, ensure_ascii=False) + "4!"
    for attack in (
        "{{ messages.__class__.__mro__ }}{{ ''.__class__.mro() }}",
        "{{ messages.append(1) }}",
    ):
        with pytest.raises(GenerationError, match="refuses the conversation"):
            ChatTemplate(attack).rendered([message])
    with pytest.raises(GenerationError, match="only users"):
        ChatTemplate("{{ raise_exception('only users') }}").rendered([message])
    with pytest.raises(ModelError, match="not valid"):
        ChatTemplate("{% if %}")


# --- wrong uses ---


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (7, {}, "prompt is a text"),
        ([], {}, "prompt is a text"),
        (torch.tensor([999]), {}, "token 999 is not in the vocabulary"),
        (torch.tensor([], dtype=torch.long), {}, "an empty prompt"),
        ([{"role": "user"}], {}, "a message has role and content"),
        ("a\ud83d", {}, "half of a character at 1"),
        ("a", {"max_new_tokens": 0}, "max_new_tokens is a whole number"),
        ("a", {"temperature": -1}, "temperature is a number"),
        ("a", {"top_k": 3}, "temperature=0 takes the likeliest token.*top_k"),
        ("a", {"temperature": 1, "top_p": 2}, "top_p is a number"),
        ("a", {"stop": [""]}, "stop is a text"),
        ("a", {"stop": 3}, "stop is a text"),
        ("a", {"seed": -1}, "a seed is a whole number"),
        ("a", {"seed": [1, 2]}, "2 seeds for 1 texts"),
        ("a", {"output": "pil"}, "output is one of text, tokens, scores"),
        ("a", {"callback": 3}, "callback is a function"),
        ("a" * 600, {}, "a prompt of 601 tokens is too long for a model of 512"),
    ],
)
def test_wrong_arguments_are_refused_before_the_network_runs(model, prompt, options, message):
    with pytest.raises(GenerationError, match=message):
        model.check(prompt, **options)


def test_models_without_a_tokenizer_or_weights_say_so(model):
    bare = LanguageModel(model.decoder)
    with pytest.raises(ModelError, match="has no tokenizer"):
        bare.generate("a")
    with pytest.raises(ModelError, match="neither writes texts"):
        bare.generate(torch.tensor([1]))
    assert len(bare.generate(torch.tensor([1]), max_new_tokens=2, output="tokens")) == 2
    no_chat = LanguageModel(model.decoder, TextTokenizer(model.tokenizer.model))
    with pytest.raises(ModelError, match="no chat template"):
        no_chat.generate([{"role": "user", "content": "a"}])
    learned = tiny_language_model(rope=None, places=16)
    with pytest.raises(GenerationError, match=r"Try max_new_tokens=12"):
        learned.generate("abc", max_new_tokens=13)
    learned.generate("abc", max_new_tokens=12)
    with pytest.raises(ModelError, match="meta device"):
        tiny_language_model().to("meta").generate("a")
    with pytest.raises(GenerationError, match="a score needs 2 to 512 tokens"):
        model.score(torch.tensor([1]))


def test_changes_of_a_layer_during_a_call_reach_every_step(model):
    class Quiet(Adapter):
        def edits(self, model):
            return model.slot("decoder.attention.output").wrap(
                lambda inner, seat: Chain(inner, Lambda(lambda x: x * 0)), stage="output"
            )

    bare = model.generate("a cat", max_new_tokens=8, output="tokens")
    with Quiet().on(model):
        changed = model.generate("a cat", max_new_tokens=8, output="tokens")
        whole = [*model.tokenizer.tokens("a cat")]
        for token in changed.tolist():
            with torch.no_grad():
                assert int(model.decoder(torch.tensor([whole]))[0, -1].argmax()) == token
            whole.append(token)
    assert not torch.equal(changed, bare)


def test_defaults_and_modes_of_torch_change_nothing(model):
    options = {"max_new_tokens": 4, "temperature": 1.0, "seed": 1, "output": "tokens"}
    bare = model.generate(["a cat", "a"], **options)
    modes = (lambda: torch.device("meta"), lambda: torch.autocast("cpu"), torch.inference_mode)
    for mode in modes:
        with mode():
            rows = model.generate(["a cat", "a"], **options)
            assert all(torch.equal(a, b) for a, b in zip(rows, bare, strict=True))
            assert model.score("a cat").tokens.device.type == "cpu"


def test_a_long_limit_takes_no_memory_in_advance():
    model = tiny_language_model()
    text = model.generate("Once", max_new_tokens=10**9, callback=lambda step, _: step < 3)
    assert text == model.generate("Once", max_new_tokens=4)
