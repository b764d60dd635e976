"""Options are checked in one place: bounds, kinds, and what an error says."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch

from refiners_core.errors import AdapterError, ConditionError
from refiners_core.option import choice, described, flag, number, whole


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), Fraction(1, 2)])
def test_numbers_of_any_library_become_floats(value):
    assert number("eta", value, 0.5, low=0, high=1) == float(value)
    assert type(number("eta", value, 0.5)) is float


@pytest.mark.parametrize(
    ("bounds", "value", "message"),
    [
        ({}, math.nan, "eta is a finite number, not nan. Try eta=0.5."),
        ({}, "1", "eta is a finite number, not '1'."),
        ({"of": "apg"}, True, "the eta of apg is a finite number, not True. Try eta=0.5."),
        ({"low": 0, "high": 1}, 2, "eta is a number in 0...1, not 2."),
        ({"low": 0}, -0.1, "eta is a number of at least 0, not -0.1."),
        ({"high": 1}, math.inf, "eta is a number of at most 1, not inf."),
        ({"high": 1}, 1.5, "eta is a number of at most 1, not 1.5."),
        ({}, torch.ones(2), "eta is a finite number, not a tensor [2] of torch.float32."),
        ({}, {}, "eta is a finite number, not a value of type dict."),
    ],
)
def test_other_values_are_refused_with_their_bounds(bounds, value, message):
    with pytest.raises(AdapterError, match=re.escape(message)):
        number("eta", value, 0.5, **bounds)


def test_whole_numbers_are_not_fractions_or_truths():
    assert whole("steps", np.int64(3), 30) == 3
    for value in (True, 2.0, "3", 0, None):
        with pytest.raises(AdapterError, match=r"^steps is a whole number from 1 on, not .*=30\.$"):
            whole("steps", value, 30)
    with pytest.raises(AdapterError, match=r"^steps is a whole number in 0\.\.\.9, not 10"):
        whole("steps", 10, 3, low=0, high=9)


def test_flags_and_choices_are_exact():
    assert flag("on", False, True) is False
    with pytest.raises(AdapterError, match=r"^on is True or False, not 1\. Try on=True\.$"):
        flag("on", 1, True)
    assert choice("version", 2, (2, 1)) == 2
    for value in (True, 2.0, "2", [], torch.ones(2)):
        with pytest.raises(AdapterError, match=r"^version is 2 or 1, not .* Try version=2\.$"):
            choice("version", value, (2, 1))
    with pytest.raises(AdapterError, match=r'^kind is one of a, b, c, not .d.\. Try kind="a"\.$'):
        choice("kind", "d", "abc")


def test_the_kind_of_the_error_is_that_of_the_caller():
    for check in (number, whole, flag):
        with pytest.raises(ConditionError):
            check("x", None, 1, error=ConditionError)
    with pytest.raises(ConditionError):
        choice("x", None, "ab", error=ConditionError)


def test_long_values_are_cut():
    assert len(described("x" * 10_000)) < 100
    assert described([1, 2]) == "[1, 2]"
