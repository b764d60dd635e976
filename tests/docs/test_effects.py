"""The guide's table of effects is the one that its record of results gives, of today's weights."""

import re
from pathlib import Path

import refiners
from refiners_train.evaluate.record import read_record, record_of, stale, with_table

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "effects.md"
AGAIN = "refiners evaluate --docs docs/guide/effects.md"
RESULTS = read_record(record_of(PAGE))
TOGETHER = "controlnet-canny+ip-adapter+lora-ink"


def test_the_table_is_that_of_the_record():
    assert RESULTS
    assert with_table(PAGE, RESULTS) == PAGE.read_text("utf-8"), AGAIN


def test_every_figure_is_of_the_weights_that_are_shipped():
    assert [*stale(RESULTS)] == [], AGAIN


def test_every_measure_of_this_repository_has_a_result_of_64_samples_or_more():
    measured = {row.measure for result in RESULTS for row in result.rows}
    declared = {m.name for m in refiners.measures() if m.dist == "refiners-playground"}
    assert declared - measured == set(), AGAIN
    assert all(row.n >= 64 for result in RESULTS for row in result.rows)


def test_a_control_an_image_prompt_and_a_style_are_measured_together():
    assert TOGETHER in {result.adapter for result in RESULTS}, f"refiners evaluate {TOGETHER} ..."


def test_every_missed_bar_is_explained_and_no_other():
    _, _, section = PAGE.read_text("utf-8").partition("\n## Missed\n")
    explained = set(re.findall(r"^- `(.+?)`: ", section, re.MULTILINE))
    missed = {
        f"{row.adapter}: {row.figure}"
        for result in RESULTS
        for row in result.rows
        if row.is_kept is False
    }
    assert missed == explained
