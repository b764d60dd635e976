import pytest
from refiners_train.evaluate.estimate import bootstrap, number, wilson


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [  # computed from the formula of Wilson 1927 with z = 1.96
        (0, 10, 0.0, 0.2775),
        (8, 10, 0.4902, 0.9433),
        (10, 10, 0.7225, 1.0),
        (48, 96, 0.4020, 0.5980),
    ],
)
def test_the_interval_of_a_share_is_wilsons(hits: int, count: int, low: float, high: float):
    share = wilson(hits, count)
    assert share.value == hits / count
    assert share.low == pytest.approx(low, abs=2e-4)
    assert share.high == pytest.approx(high, abs=2e-4)


def test_a_bootstrap_covers_the_mean_and_is_the_same_each_time():
    outcomes = [float(i % 7) for i in range(140)]  # mean 3, deviation 2: 1.96 * 2 / sqrt(140)
    first = bootstrap(outcomes, lambda rows: sum(rows) / len(rows))
    assert first.value == 3
    assert first.low == pytest.approx(3 - 0.331, abs=0.04)
    assert first.high == pytest.approx(3 + 0.331, abs=0.04)
    assert first == bootstrap(outcomes, lambda rows: sum(rows) / len(rows))


def test_a_bootstrap_resamples_whole_rows():
    outcomes = [(float(i), 2.0 * i) for i in range(64)]
    ratio = bootstrap(outcomes, lambda rows: sum(b for _, b in rows) / sum(a for a, _ in rows))
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((2, 2, 2))


def test_numbers_have_two_decimals_or_one():
    assert [number(x) for x in (0.9734, -0.004, 36.94, 0.0)] == ["0.97", "-0.00", "36.9", "0.00"]
