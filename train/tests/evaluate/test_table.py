import csv

from refiners_train.evaluate.estimate import Estimate
from refiners_train.evaluate.result import Result, Row
from refiners_train.evaluate.table import as_csv, as_markdown, cells

from .gauge import result


def joint() -> Result:
    row = Row(
        adapter="a+b",
        measure="a",
        figure="hits",
        base="playground",
        without=Estimate(0.1, 0.0, 0.2),
        value=Estimate(0.7, 0.6, 0.8),
        alone=Estimate(0.9, 0.8, 1.0),
        n=64,
        bar=">= 0.85 x alone",
        is_kept=False,
    )
    return result("a+b", rows=(row,))


def test_what_a_trial_has_once_is_in_its_first_row():
    [row] = result("a").rows
    first, second = cells([result("a", rows=(row, row))])
    assert first[0] == "a"
    assert first[5:8] == ("96", "12.3", "400")
    assert (second[0], second[6], second[7]) == ("", "", "")
    assert first[3:5] == ("0.90", "0.80...1.00")


def test_a_row_beside_others_shows_the_value_alone_and_a_missed_bar():
    (row,) = cells([joint()])
    assert row[1] == "a: hits (alone 0.90)"
    assert row[-2:] == (">= 0.85 x alone", "MISSED")


def test_csv_has_every_number():
    [row, other] = csv.DictReader(as_csv([result("a"), joint()]).splitlines())
    assert (row["adapter"], row["without"], row["with"]) == ("a", "0.1", "0.9")
    assert (row["low"], row["high"], row["n"], row["peak_mb"]) == ("0.8", "1.0", "96", "400.0")
    assert (row["alone"], row["kept"], row["seed"]) == ("", "True", "0")
    assert (other["alone"], other["kept"]) == ("0.9", "False")


def test_markdown_has_models_then_adapters_then_adapters_together():
    [row] = result("m").rows
    model = result("m", rows=(Row(**{n: getattr(row, n) for n in row.__struct_fields__} | {
        "without": None, "bar": "", "is_kept": None}),))  # fmt: skip
    text = as_markdown([joint(), result("a"), model])
    order = [text.index(words) for words in ("The models", "`m`", "**Adapters**", "`a`", "`a+b`")]
    assert order == sorted(order)
    assert all(line.count("|") == 11 for line in text.splitlines() if line.startswith("|"))
