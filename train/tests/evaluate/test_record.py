from pathlib import Path

import pytest
import refiners
from refiners.errors import OptionError
from refiners_train.evaluate.record import (
    BEGIN,
    END,
    read_record,
    record_of,
    stale,
    with_table,
    write_record,
)

from .gauge import result


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "effects.md"
    path.write_text(f"# Effects\n\n{BEGIN}\nold\n{END}\n\nThe end.\n")
    return path


def test_results_are_written_into_the_page_and_beside_it(page: Path):
    write_record(page, [result("lora-ink")])
    text = page.read_text()
    assert text.startswith("# Effects\n")
    assert text.endswith(f"{END}\n\nThe end.\n")
    assert "| `lora-ink` | hits | 0.10 | 0.90 | 0.80...1.00 | >= 0.50 | kept | 96 |" in text
    assert "old" not in text
    assert read_record(record_of(page)) == (result("lora-ink"),)


def test_newer_results_take_the_place_of_older_ones_and_leave_others(page: Path):
    write_record(page, [result("b"), result("a", value=0.6)])
    write_record(page, [result("a", value=0.8)])
    first, second = read_record(record_of(page))
    assert (first.adapter, first.rows[0].value.value, second.adapter) == ("a", 0.8, "b")
    assert with_table(page, (first, second)) == page.read_text()


@pytest.mark.parametrize("text", [None, "# No marks\n", f"{BEGIN}\n"])
def test_a_page_without_a_place_is_refused_and_nothing_is_written(page: Path, text: str | None):
    page.unlink() if text is None else page.write_text(text)
    with pytest.raises(OptionError, match="measured: begin"):
        write_record(page, [result("a")])
    assert not record_of(page).exists()


def test_results_of_other_files_than_those_installed_are_stale():
    [ink] = [adapter for adapter in refiners.adapters() if adapter.name == "lora-ink"]
    digest = next(iter(ink.spec.weights.values())).sha256
    fresh = result("lora-ink", files={ink.id: {"weights": digest}})
    assert [*stale([fresh])] == []
    old = result("lora-ink", files={ink.id: {"weights": "0" * 64}})
    assert [*stale([old])] == [f"lora-ink: {ink.id} weights"]
    gone = result("lora-ink", files={"nobody:nothing": {"weights": digest}})
    assert [*stale([gone])] == ["lora-ink: nobody:nothing weights"]


def test_the_files_of_readers_are_hashed_in_their_package():
    from hashlib import sha256

    from refiners_playground.recogniser import WEIGHTS

    digest = sha256(WEIGHTS.read_bytes()).hexdigest()
    files = {"pkg:refiners_playground": {"weights/recogniser.safetensors": digest}}
    assert [*stale([result("a", files=files)])] == []
    files = {"pkg:refiners_playground": {"weights/gone.safetensors": digest}}
    assert [*stale([result("a", files=files)])] != []
