"""The writer writes sentences that are grammatical, true to the request, and can be drawn."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import refiners
import torch
from refiners_playground.caption import WORDS
from refiners_playground.description import (
    ARCHAIC,
    PLAIN,
    STORY,
    Description,
    Sentence,
    Thing,
    read_sentences,
)
from refiners_playground.measure.writer import Drawn
from refiners_playground.request import changed_request, completed, random_request
from refiners_playground.scene import is_held_out
from refiners_playground.writer import FOLDER, build
from refiners_playground.writer_effect import (
    ADAPTERS,
    grammatical,
    having,
    held_out_requests,
    true_to,
    written,
)

from refiners_core.measure import Settings
from refiners_core.models.clip import ClipTokenizer
from refiners_core.models.decoder import LanguageModel

TRAINING = Path(__file__).parents[1] / "training"
DESCRIBED = Description((Thing("circle", "red"),), "blue")


@pytest.fixture(scope="module")
def writer() -> LanguageModel:
    return refiners.load_model("playground-writer")  # type: ignore[return-value]


@pytest.fixture(scope="module")
def requests():
    return held_out_requests(256)


@pytest.fixture(scope="module")
def answers(writer, requests) -> list[str]:
    return written(writer, requests)


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes the training scripts importable for a test, and unloads them afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(TRAINING)
    yield
    for name in set(sys.modules) - before:
        if TRAINING in Path(str(getattr(sys.modules[name], "__file__", ""))).parents:
            del sys.modules[name]


def test_every_sentence_is_read_back():
    random = Random(0)
    for _ in range(300):
        described = random_request(random).answer
        for opening in (PLAIN, ARCHAIC, STORY):
            for is_first in (False, True):
                sentence = Sentence(described, opening, is_first)
                assert read_sentences(f"{sentence} {sentence}") == (sentence, sentence)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Picture",
        "Picture a red circle on a blue background",
        "picture a red circle on a blue background.",
        "Picture an red circle on a blue background.",
        "Picture a orange circle on a blue background.",
        "Picture a red circle upon a blue background.",
        "Picture a red circle on a blue background!",
        "Behold a red circle on a blue background!",
        "Picture a red red circle on a blue background.",
        "Picture a circle red on a blue background.",
        "Picture a red zebra on a blue background.",
        "Picture a red circle left of on a blue background.",
        "Picture a red circle on the left left of a blue ring.",
        "Picture a red circle on a blue background. Picture",
        "On a blue background picture a red circle.",
        "Picture a red circle  on a blue background.",
    ],
)
def test_a_text_that_is_not_of_the_grammar_is_not_read(text: str):
    assert read_sentences(text) is None


@pytest.mark.parametrize(
    ("wish", "is_true"),
    [
        (Description((Thing(),)), True),
        (Description((Thing("circle"),), "blue"), True),
        (Description((Thing("square"),)), False),
        (Description((Thing("circle", "green"),)), False),
        (Description((Thing("circle", size="small"),)), False),
        (Description((Thing("circle"),), place="at the top"), False),
        (Description((Thing("circle"),), "red"), False),
        (Description((Thing("circle"), Thing("circle")), relation="above"), False),
    ],
)
def test_an_answer_is_true_if_it_states_what_the_request_wishes_for(wish, is_true):
    assert DESCRIBED.holds(wish) is is_true


def test_training_never_asks_for_a_held_out_combination():
    random = Random(0)
    wishes = [random_request(random).wish for _ in range(2000)]
    full = [
        (thing.shape, thing.colour, wish.background)
        for wish in wishes
        for thing in wish.things
        if thing.shape and thing.colour and wish.background
    ]
    assert len(full) > 500
    assert not any(is_held_out(*combination) for combination in full)
    measured = [request.wish for request in held_out_requests(200)]
    assert any(is_held_out(*_combination(wish)) for wish in measured if all(_combination(wish)))


def test_a_choice_never_makes_an_object_vanish():
    random = Random(0)
    for _ in range(500):
        wish = replace(random_request(random).wish, background="")
        for source in (None, random):
            chosen = completed(wish, source)
            assert chosen.holds(wish)
            assert chosen.background not in [thing.colour for thing in chosen.things]


def test_the_last_description_can_be_changed():
    random = Random(0)
    for _ in range(200):
        request = changed_request(DESCRIBED, random)
        assert request.answer != DESCRIBED
        assert request.answer.background not in [thing.colour for thing in request.answer.things]


def test_descriptions_are_grammatical_and_true_to_the_request(requests, answers):
    assert grammatical(answers) >= 0.95
    assert true_to(requests, answers) >= 0.95


def test_chats_are_answered_as_well(writer, requests):
    answers = written(writer, requests[:128], is_chat=True)
    assert grammatical(answers) >= 0.95
    assert true_to(requests[:128], answers) >= 0.95


def test_descriptions_have_words_that_the_playground_knows_and_fit_into_its_prompt(answers):
    tokenizer = ClipTokenizer.load(FOLDER.parent / "tokenizer")
    words = {word for answer in answers for word in answer.lower().strip(".").split()}
    assert words <= WORDS
    assert max(len(tokenizer.tokens(answer)) for answer in answers) <= tokenizer.length - 2


def test_what_it_writes_can_be_drawn(writer):
    shares = Drawn().values(writer, None, 8, Settings(steps=12))
    assert min(shares.values()) >= 0.75


def test_a_text_is_continued_and_a_conversation_goes_on(writer):
    openings: list[str] = []
    for begun in ("Picture a red", "Once upon"):
        sentences = read_sentences(begun + writer.generate(begun))
        assert sentences is not None
        openings += [sentence.opening for sentence in sentences]
    assert openings == [PLAIN, STORY]
    question = {"role": "user", "content": "Describe a red circle on a blue ground."}
    answer = writer.generate([question])
    assert answer == "Picture a red circle on a blue background."
    turns = [question, {"role": "assistant", "content": answer}]
    changed = writer.generate([*turns, {"role": "user", "content": "Make it green."}])
    assert changed == "Picture a green circle on a blue background."


def test_the_structure_needs_no_weights_and_has_the_facts_of_the_manifest(writer):
    structure = build(None)
    assert structure.device.type == "meta"
    structure.check("a red circle")
    [installed] = [m for m in refiners.models() if m.name == "playground-writer"]
    facts = dict(installed.spec.facts)
    assert {name: writer.facts[name] for name in facts} == facts


@pytest.mark.parametrize("name", ADAPTERS)
def test_each_adapter_has_its_effect(scripts, writer, requests, answers, name):
    from train_writer_adapters import COURSES

    style = ADAPTERS[name]
    some = requests[:96]
    adapter = COURSES[name].adapter(name=name).inject(writer)
    adapter.restore(writer, FOLDER.with_name(name.replace("-", "_")))
    styled = written(writer, some)
    adapter.eject()
    assert having(answers, style.is_met) <= 0.15
    assert having(styled, style.is_met) >= 0.9
    assert grammatical(styled) >= 0.9
    assert written(writer, some[:8]) == answers[:8]


def test_a_lesson_teaches_the_answers_and_nothing_else(scripts, writer):
    from writer_lesson import IGNORED, Lesson

    lesson = Lesson(writer.tokenizer, batch=12, stories=0.0)
    random = Random(0)
    for _ in range(6):
        texts = lesson.sample(random)
        for ids, labels in zip(texts.ids, texts.labels, strict=True):
            learnt = labels != IGNORED
            assert torch.equal(ids[learnt], labels[learnt])
            sentences = writer.tokenizer.text(ids[learnt].tolist())
            assert read_sentences(sentences.replace(".Picture", ". Picture")) is not None


def _combination(wish: Description) -> tuple[str, str, str]:
    return wish.things[0].shape, wish.things[0].colour, wish.background
