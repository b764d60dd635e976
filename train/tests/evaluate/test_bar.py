import pytest
from refiners_train.evaluate.bar import bars, bars_together
from refiners_train.evaluate.estimate import Estimate

from refiners_core.measure import Figure


def at(value: float) -> Estimate:
    return Estimate(value, value, value)


@pytest.mark.parametrize(
    ("figure", "value", "without", "words", "is_kept"),
    [
        (Figure("a", least=0.8), 0.8, 0.1, ">= 0.80", True),
        (Figure("a", least=0.8), 0.79, 0.1, ">= 0.80", False),
        (Figure("a", most=8), 9.0, 40.0, "<= 8.00", False),
        (Figure("a", most_without=0.2), 0.9, 0.3, "<= 0.20 without", False),
        (Figure("a", least_without=25), 1.0, 36.0, ">= 25.0 without", True),
        (Figure("a", loss=0.05), 0.91, 0.95, ">= without - 0.05", True),
        (Figure("a", loss=0.05), 0.89, 0.95, ">= without - 0.05", False),
        (Figure("a", share_of=("b", 0.9)), 0.5, 0.1, ">= 0.9 x b", True),
        (Figure("a", share_of=("b", 0.9)), 0.4, 0.1, ">= 0.9 x b", False),
    ],
)
def test_a_bar_is_told_in_words_and_judged(figure, value, without, words, is_kept):
    (bar,) = bars(figure, at(value), at(without), {"a": at(value), "b": at(0.5)})
    assert bar == (words, is_kept)


def test_bars_on_the_value_without_need_one():
    figure = Figure("a", least=0.5, most_without=0.2, loss=0.1)
    assert [bar.words for bar in bars(figure, at(0.6), None, {})] == [">= 0.50"]
    assert len([*bars(figure, at(0.6), at(0.1), {})]) == 3


def test_beside_others_only_a_share_of_the_value_alone_counts():
    figure = Figure("a", least=0.9, together=0.85)
    (bar,) = bars_together(figure, at(0.8), alone=0.9)
    assert bar == (">= 0.85 x alone", True)
    (bar,) = bars_together(figure, at(0.7), alone=0.9)
    assert not bar.is_kept
    assert not [*bars_together(Figure("a", least=0.9), at(0.1), 0.9)]
