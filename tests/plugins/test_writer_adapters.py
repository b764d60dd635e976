"""The adapters of the playground's writer load by name, and together."""

import pytest
import refiners
from click.testing import CliRunner
from refiners.cli import main
from refiners_playground.description import ARCHAIC, read_sentences
from refiners_playground.writer_effect import ADAPTERS, having, held_out_requests, written

from refiners_core import Condition

REQUESTS = held_out_requests(48, seed=3)


@pytest.fixture(scope="module")
def writer():
    return refiners.load_model("playground-writer")


@pytest.fixture(scope="module")
def bare(writer) -> list[str]:
    return written(writer, REQUESTS)


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_of_the_writer_gives_its_property(writer, bare, name):
    with refiners.load_adapter(name).on(writer) as adapter:
        styled = written(writer, REQUESTS)
        assert written(writer, REQUESTS[:4], {adapter: Condition(scale=0)}) == bare[:4]
    assert having(styled, ADAPTERS[name].is_met) >= 0.9
    assert having(bare, ADAPTERS[name].is_met) <= 0.15
    assert written(writer, REQUESTS[:4]) == bare[:4]


def test_each_text_of_a_batch_may_have_its_own_adapter(writer, bare):
    requests = [request.text for request in REQUESTS[:2]]
    with refiners.load_adapter("writer-archaic").on(writer) as archaic:
        first, second = writer.generate(requests, conditions={archaic: Condition(scale=[1, 0])})
    assert [sentence.opening for sentence in read_sentences(first) or ()] == [ARCHAIC]
    assert second == bare[1]


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_shell_checks_and_wears_an_adapter_by_name(name):
    result = CliRunner().invoke(main, ["write", "a star", "--adapter", f"{name},scale=1"])
    assert result.exit_code == 0, result.output
    assert having([result.stdout.strip()], ADAPTERS[name].is_met) == 1
