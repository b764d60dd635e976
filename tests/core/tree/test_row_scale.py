"""A scale for each row travels in the context, and is multiplied like any other."""

import pytest
import torch

from refiners_core import Context, RowScale
from refiners_core.errors import ConditionError
from refiners_core.tree.row_scale import keys_by_row


def test_it_has_the_rows_whose_scale_is_not_zero():
    scale = RowScale.of([0.0, -0.5, 2.0])
    assert scale.active.tolist() == [1, 2]
    assert scale.values.tolist() == [-0.5, 2.0]
    assert scale.whole is None


def test_a_scale_that_is_the_same_in_all_rows_is_also_one_number():
    assert RowScale.of([0.5, 0.5]).whole == 0.5
    assert RowScale.of([0.0, 0.0]).whole is None
    values = {"a.scale": RowScale.of([1.0, 0.0]), "b.scale": RowScale.of([1.0, 1.0])}
    assert keys_by_row(values) == ("a.scale",)


def test_a_scope_multiplies_it():
    values = {"a.scale": RowScale.of([1.0, 0.0, 2.0]), "b.scale": torch.tensor(3.0)}
    inner = Context(values).scope(scales={"a": 0.5, "b": 2.0})
    assert inner["a.scale"].scales.tolist() == [0.5, 0.0, 1.0]
    assert inner["a.scale"].values.tolist() == [0.5, 1.0]
    assert inner["b.scale"] == 6.0


def test_another_number_of_rows_is_refused():
    with pytest.raises(ConditionError, match=r"a.scale has scales for 2 rows, but a layer gets 3"):
        RowScale.of([1.0, 0.0]).check(3, "a.scale")
