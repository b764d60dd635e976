"""Scales in all their forms: checked, evaluated at a step and a place, and recorded."""

import pytest
import torch

from refiners_core import Condition
from refiners_core.errors import ConditionError
from refiners_core.scale import by_picture, checked_scale, fixed, is_zero, places_in, recorded_scale


def at(scale, progress, names=(), count=1):
    return by_picture(fixed(checked_scale(scale), progress), names, count)


@pytest.mark.parametrize(
    ("scale", "progress", "names", "expected"),
    [
        (0.5, 0.9, (), (0.5, 0.5)),
        (torch.tensor(2), 0.0, (), (2.0, 2.0)),
        ([0.5, 1], 0.0, (), (0.5, 1.0)),
        (torch.tensor([0.25, 1.0]), 0.0, (), (0.25, 1.0)),
        ((0.5, 1), 0.0, (), (0.5, 1.0)),
        ({"a": 1, "a.0": 0.5}, 0.0, ("a.0", "a"), (0.5, 0.5)),
        ({"a": 1}, 0.0, ("b",), (0.0, 0.0)),
        ({}, 0.0, ("b",), (0.0, 0.0)),
        ([(0, 1), (0.5, 0.2)], 0.25, (), (0.6, 0.6)),
        ([(0.5, 1), (1, 0)], 0.25, (), (1.0, 1.0)),
        ([(0, 1), (0.5, 0.2)], 0.75, (), (0.2, 0.2)),
        ([(0, [1, 0]), (1, 0)], 0.5, (), (0.5, 0.0)),
        (lambda p: p, 0.3, (), (0.3, 0.3)),
        (lambda p, power=2: p**power, 0.5, (), (0.25, 0.25)),
        (lambda p: {"a": [p, 1 - p]}, 0.25, ("a",), (0.25, 0.75)),
        ([lambda p: p, [(0, 1), (1, 0)]], 0.25, (), (0.25, 0.75)),
        ([{"a": 1}, {"b": 1}], 0.0, ("a",), (1.0, 0.0)),
        ({"a": [[(0, 0), (1, 1)], 0.5]}, 0.5, ("a",), (0.5, 0.5)),
    ],
)
def test_a_scale_has_a_number_for_each_step_place_and_picture(scale, progress, names, expected):
    assert at(scale, progress, names, 2) == pytest.approx(expected)
    Condition(scale=scale)  # accepted


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ("much", "scale of a condition is a finite number, not 'much'. Try scale=1.0"),
        (True, "is a finite number, not True"),
        (float("nan"), "is a finite number, not nan"),
        ([], "is a finite number, not \\[\\]"),
        (None, "is a finite number, not None"),
        (float, "is a finite number, not <class 'float'>"),
        (lambda: 1, "a function that cannot be called with the progress alone: too many"),
        (lambda step, steps: 1, "cannot be called with the progress alone: missing .* 'steps'"),
        ({"a": lambda: 1}, "scale of a condition at a is a function that cannot be called"),
        ({1: 2}, "is a finite number, not {1: 2}"),
        ({"a": {"b": 1}}, "scale of a condition at a is a finite number, not {'b': 1}"),
        ([[1, 2, 3], 1], "for picture or text 1 is a finite number, not \\[1, 2, 3\\]"),
        (torch.ones(2, 3), "for picture or text 1 is a finite number, not"),
        ([(1, 0), (0, 1)], "a progress in 0...1 and ascend; got 1, 0"),
        ([(0, 1), (2, 1)], "a progress in 0...1 and ascend; got 0, 2"),
        ([("a", 1), ("b", 1)], "ascend; got a, b"),
        ([(0, {"a": 1}), (1, 0)], "at progress 0 is a finite number"),
        ([(0, lambda p: p), (1, 0)], "with a schedule inside"),
        ([(0, [1, 2]), (1, [1, 2, 3])], "a list of pairs for 2 and 3 pictures"),
    ],
)
def test_what_is_not_a_scale_is_refused_where_it_is_written(scale, message):
    with pytest.raises(ConditionError, match=message):
        Condition(scale=scale)


def test_a_wrong_number_of_scales_names_the_adapter():
    with pytest.raises(ConditionError, match=r"ink has 3 scales for 1 picture\. Pass .* count=3"):
        by_picture((1.0, 0.0, 0.5), (), 1, "ink")


def test_a_scale_is_0_if_all_its_parts_are():
    assert is_zero({"a": (0.0, 0.0), "b": 0.0})
    assert is_zero({})
    assert not is_zero({"a": (0.0, 0.1)})
    assert [*places_in(({"a": 1.0}, {"b": 0.0}))] == ["a", "b"]
    assert not Condition(scale={"a": [0, 0]}).is_active(0, steps=4)
    assert Condition(scale={"a": [0, 1]}).is_active(0, steps=4)
    assert not Condition(scale=lambda p: p - 0.5).is_active(2, steps=4)
    assert not Condition(scale=[(0, 1), (1, 0)], end=0.5).is_active(2, steps=4)


@pytest.mark.parametrize(
    "scale",
    [
        0.5,
        {"a": 1, "b": [(0, 1), (1, 0)]},
        lambda p: 1 - p * p,
        {"a": lambda p: [p, 0.5]},
        torch.tensor([0.25, 1.0]),
    ],
)
def test_a_recorded_scale_is_the_same_scale(scale):
    recorded = recorded_scale(checked_scale(scale), 4)
    for step in range(4):
        expected = at(scale, step / 4, ("a",), 2)
        assert at(recorded, step / 4, ("a",), 2) == expected


def test_a_function_of_places_is_not_recorded():
    scale = checked_scale(lambda p: {"a": p})
    assert recorded_scale(scale, 4) is scale
