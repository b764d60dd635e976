"""Conditions that cannot be followed are refused in the words of whoever wrote them."""

import pytest
import torch

from refiners_core import Adapter, Condition, Layer, Sum
from refiners_core.errors import ConditionError, Notice
from refiners_core.picture import to_pixels


class Tint(Adapter):
    """Takes a picture, or one for each picture to be made."""

    takes_condition = True
    takes_mask = True

    def edits(self, model):
        return model.slot("unet.conv_in").wrap(lambda inner, seat: Sum(inner))

    def encode(self, value, request):
        value = value["picture"] if isinstance(value, dict) else value
        return {self.context_key("seen"): {"cond": to_pixels(value, (2, 2))}}


PICTURE = torch.rand(3, 8, 8)


def made(model, value, **more):
    (tint,) = model.adapters
    arguments = {"steps": 4, "seed": 1, "output": "latents", "progress": False, **more}
    return model.generate("a", conditions={tint: value}, **arguments)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([PICTURE] * 2, "tint is given 2 values for 1 picture."),
        (torch.rand(2, 3, 8, 8), "tint is given 2 values for 1 picture."),
        (Condition([PICTURE] * 3), "tint is given 3 values for 1 picture."),
        ({"picture": [PICTURE] * 2}, "tint is given 2 values as picture for 1 picture."),
    ],
)
def test_wrong_counts_are_reported_in_terms_of_the_arguments(value, message, model):
    Tint(key="tint").inject(model)
    with pytest.raises(ConditionError, match=message) as error:
        made(model, value)
    assert "encode" not in str(error.value)
    many = int(error.value.hint.rpartition("count=")[2].rstrip("."))
    made(model, value, count=many)  # as the hint says


def test_an_adapter_takes_one_mask(model):
    Tint(key="tint").inject(model)
    with pytest.raises(ConditionError, match=r"acts in the same area .* given 2 masks"):
        made(model, Condition(PICTURE, mask=torch.rand(2, 1, 8, 8)))


def test_a_span_without_a_step_is_noticed_with_the_steps_that_there_are(model, recwarn):
    Tint(key="tint").inject(model)
    for condition in (Condition(PICTURE, end=0.5), Condition(PICTURE, scale=0, end=0.1)):
        made(model, condition)
    assert not [it for it in recwarn.list if it.category is Notice]
    steps = r"no step lies within 0.3...0.45; the 4 steps are 0...0.25, .*, 0.75...1"
    with pytest.warns(Notice, match=f"tint does not act: {steps}"):
        made(model, Condition(PICTURE, start=0.3, end=0.45))
    with pytest.warns(Notice, match=r"the 30 steps are .*, \.\.\., "):
        made(model, Condition(PICTURE, start=0.01, end=0.02), steps=30)


def test_the_hint_of_a_wrong_start_is_a_start_that_acts():
    with pytest.raises(ConditionError) as error:
        Condition(start="soon")  # type: ignore[arg-type]
    assert error.value.hint == "Try start=0.0."


class MayTint(Tint):
    """Acts with a picture, or without one."""

    needs_condition = False

    def edits(self, model):
        return model.slot("unet.conv_in").wrap(lambda inner, seat: Sum(inner, Seen(self)))


class Seen(Layer):
    """Adds 1, and the mean of the picture if there is one."""

    def __init__(self, adapter):
        super().__init__()
        self.seen, self.scale_key = adapter.context_key("seen"), adapter.scale_key

    def run(self, context, *inputs):
        if context.get(self.scale_key) is None:
            return None
        seen = context.get(self.seen)
        return context[self.scale_key] * (1 if seen is None else 1 + seen.mean())


def test_a_condition_that_is_not_needed_may_be_left_out(model):
    tint = MayTint(key="tint").inject(model)
    arguments = {"steps": 2, "seed": 1, "output": "latents", "progress": False}
    absent = model.generate("a", **arguments)
    assert torch.equal(made(model, Condition(), steps=2), absent)
    assert torch.equal(
        made(model, None, steps=2), model.generate("a", conditions={tint: None}, **arguments)
    )
    outcomes = [
        absent,
        made(model, None, steps=2),
        made(model, PICTURE, steps=2),
        made(model, Condition(scale=0.5), steps=2),
    ]
    assert len({tuple(x.flatten().tolist()) for x in outcomes}) == 4
