"""Commands that write texts take any model that streams, and end cleanly however they end."""

import json
from importlib import import_module
from typing import Any

import pytest
from click.testing import CliRunner, Result
from refiners.cli import main
from refiners.testing import LoopbackHub

from ..conftest import EDGES, TOY_MODEL, TOY_MODEL_TOML, Site
from .test_commands import PAINTER

POET = (
    TOY_MODEL
    + """
from refiners_core.errors import GenerationError, ModelError


class Poet(Model):
    calls = []

    def check(self, prompt, **arguments):
        if isinstance(prompt, list) and sum(len(m["content"]) for m in prompt) > 60:
            raise GenerationError("the prompt is too long.", hint="Shorten it.")
        if arguments.get("top_k") and not arguments.get("temperature"):
            raise GenerationError("got top_k.", hint="Try temperature=0.7, or leave top_k out.")

    def stream(self, prompt, **arguments):
        self.check(prompt, **arguments)
        if self.body.layer("first").weight.is_meta:
            raise ModelError("no weights.")
        Poet.calls.append((prompt, arguments))
        last = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        for word in ("You", " wrote ", last, f" with {arguments['seed']}", ".\\x1b[2J"):
            if last == "wait":
                raise KeyboardInterrupt
            yield word


def write(source, *, device=None, dtype=None):
    model = build(source, device=device, dtype=dtype)
    return Poet(base="toy", facts=model.facts, slots=model.slots, body=model.body)
"""
)


def run(*arguments: str, input: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=input)


def calls() -> list[tuple[Any, dict[str, Any]]]:
    return import_module("refiners_toy.model").Poet.calls


@pytest.fixture
def poet(site: Site) -> Site:
    site.add_edges(code=EDGES)
    manifest = TOY_MODEL_TOML.replace("model:build", "model:write")
    site.add("refiners-toy", files={"model.py": POET, "model.toml": manifest})
    return site


def test_write_prints_what_the_model_streams(poet: Site) -> None:
    result = run("write", "Once", "--model", "toy", "--adapter", "edges:0.5", "--seed", "3")
    assert result.exit_code == 0, result.output
    assert result.stdout == "You wrote Once with 3.\\x1b[2J\n"
    [(prompt, arguments)] = calls()
    [condition] = arguments.pop("conditions").values()
    assert (prompt, arguments, condition.scale) == ("Once", {"seed": 3}, 0.5)


def test_write_passes_only_the_given_options(poet: Site) -> None:
    options = ("--max-tokens", "9", "--temperature", "1", "--top-k", "4", "--stop", "a", "--stop",
               "b", "--min-p", "0.1", "--top-p", "0.9", "--repetition-penalty", "1.1")  # fmt: skip
    assert run("write", "Once", "--model", "toy", *options).exit_code == 0
    [(_, arguments)] = calls()
    expected = {"max_new_tokens": 9, "temperature": 1.0, "top_k": 4, "stop": ["a", "b"]}
    expected |= {"min_p": 0.1, "top_p": 0.9, "repetition_penalty": 1.1, "seed": 0, "conditions": {}}
    assert arguments == expected


def test_several_texts_have_the_next_seeds(poet: Site) -> None:
    result = run("write", "a", "--model", "toy", "--count", "2", "--seed", "5", "--json")
    facts = json.loads(result.stdout)
    assert facts["texts"] == [f"You wrote a with {seed}.\x1b[2J" for seed in (5, 6)]
    assert (facts["model"], facts["seed"], facts["adapters"]) == ("toy", 5, [])


def test_the_prompt_may_come_from_standard_input(poet: Site) -> None:
    assert run("write", "-", "--model", "toy", input="Once\nmore\n").stdout[:14] == "You wrote Once"
    assert calls()[-1][0] == "Once\nmore"
    result = run("write", "-", "--model", "toy", input=b"\xff\xfe\x80")
    assert (result.exit_code, "cannot be read as text" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("write",), "Missing argument 'PROMPT'"),
        (("write", ""), "the prompt is empty"),
        (("write", "x", "--max-tokens", "0"), "not in the range"),
        (("write", "x", "--temperature", "-1"), "not in the range"),
        (("write", "x", "--top-p", "2"), "not in the range"),
        (("write", "x", "--count", "0"), "not in the range"),
        (("write", "x", "--max-new-tokens", "3"), "Did you mean --max-tokens?"),
        (("write", "x", "--top-k", "4"), "Try --temperature 0.7, or leave --top-k out."),
        (("write", "x", "--adapter", "edgse"), "Did you mean 'edges'"),
        (("write", "x", "--adapter", "edges,scale=big"), "write edges,scale=0.8"),
        (("write", "x", "--adapter", "edges:1,scale=2"), "edges has two scales"),
        (("write", "x", "--adapter", "edges=/nowhere.png"), "/nowhere.png does not exist"),
        (("write", "x", "--device", "nowhere"), "'nowhere' is not a device"),
        (("write", "x", "--dtype", "int8"), "weights cannot be"),
        (("write", "x", "--model", "toi"), "Did you mean 'toy'"),
        (("write", "x", "--model", "./nowhere"), "does not exist"),
        (("chat", "--model", "toi"), "Did you mean 'toy'"),
        (("chat", "--top-k", "4"), "Try --temperature 0.7, or leave --top-k out."),
        (("chat", "--system", "s" * 60), "the prompt is too long"),
        (("chat", "hello"), "unexpected extra argument"),
    ],
)
def test_bad_input_is_refused_before_anything_is_loaded(
    poet: Site, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.setattr("refiners.load.load_model", None)
    model = () if "--model" in arguments else ("--model", "toy")
    result = run(*arguments, *model)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())


def test_each_kind_of_model_has_its_command(site: Site, hub: LoopbackHub) -> None:
    weights = '[model.toy.weights.main]\nsource = "hf:org/toy"\nfile = "a.safetensors"\n'
    site.add("refiners-toy", files={"model.py": POET, "model.toml":
        TOY_MODEL_TOML.replace("model:build", "model:write") + weights})  # fmt: skip
    site.add("refiners-oil", files={"model.py": PAINTER, "model.toml":
        TOY_MODEL_TOML.replace("toy", "oil").replace("model:build", "model:paint") +
        weights.replace("model.toy", "model.oil")})  # fmt: skip
    for arguments, words in (
        (("generate", "x", "--model", "toy"), "Run refiners write PROMPT --model toy."),
        (("write", "x", "--model", "oil"), "Run refiners generate PROMPT --model oil"),
        (("chat", "--model", "oil"), "oil does not write texts."),
    ):
        result = run(*arguments)
        assert (result.exit_code, words in result.stderr) == (2, True), result.output
    assert hub.requests == []


def test_chat_answers_each_line_and_remembers(poet: Site) -> None:
    result = run("chat", "--model", "toy", "--system", "Be kind", input="one\n\n  two\nexit\nthree")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"You wrote {text} with {seed}.\\x1b[2J" for seed, text in enumerate(("one", "two"))
    ]
    assert [message["role"] for message in calls()[-1][0]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert calls()[-1][0][2]["content"] == "You wrote one with 0.\x1b[2J"


def test_chat_leaves_out_the_oldest_messages(poet: Site) -> None:
    result = run("chat", "--model", "toy", input="1" * 9 + "\n" + "2" * 9 + "\n" + "3" * 9)
    assert result.exit_code == 0, result.output
    assert "no longer fit" in result.stderr
    contents = [message["content"] for message in calls()[-1][0]]
    assert contents[-1] == "3" * 9
    assert "1" * 9 not in "".join(contents)


def test_a_message_that_is_too_long_ends_a_pipe(poet: Site) -> None:
    result = run("chat", "--model", "toy", input="x" * 70 + "\nnext\n")
    assert (result.exit_code, "too long" in result.stderr, calls()) == (2, True, [])


@pytest.mark.parametrize("command", [("write", "wait"), ("chat",)])
def test_ctrl_c_ends_without_a_traceback(poet: Site, command: tuple[str, ...]) -> None:
    result = run(*command, "--model", "toy", input="wait\n")
    assert (result.exit_code, "Aborted!" in result.stderr) == (1, True)
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", [("write", "x"), ("chat",)])
def test_a_closed_pipe_is_not_an_error(
    poet: Site, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    def closed(*_: Any, **__: Any) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    for module in ("write", "chat"):
        monkeypatch.setattr(f"refiners.cli.{module}.write_piece", closed)
    result = run(*command, "--model", "toy", input="x\n")
    assert (result.exit_code, result.stderr) == (1, "")
