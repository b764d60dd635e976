"""On the playground, pictures take the look of a reference and keep the shape of their prompt."""

from typing import Any

import pytest
import refiners
import torch
from refiners_playground.recogniser import load_recogniser
from refiners_playground.scene import Item, Scene, draw

OPTIONS: dict[str, Any] = {"seed": 7, "steps": 10, "output": "tensor", "progress": False}
LOOK = ("background", "colour")


@pytest.fixture(scope="module")
def model() -> Any:
    return refiners.load_model("playground")


@pytest.mark.parametrize(
    ("name", "options", "seed"),
    [("reference-only", {}, 5), ("reference-adain", {"norm_weight": 2.0}, 7)],
)
def test_a_picture_takes_the_look_of_the_reference(model, name, options, seed):
    recogniser = load_recogniser()
    reference = draw([Scene((Item("star", "yellow"),), "red")])
    with refiners.load_adapter(name, **options).on(model) as adapter:
        condition = {adapter: reference}
        settings = {**OPTIONS, "seed": seed, "steps": 12, "guidance": 4.0}
        pixels = model.generate("a large heart", conditions=condition, **settings)
        bare = model.generate("a large heart", conditions={adapter: None}, **settings)
    (reading,), (plain,), (wanted,) = map(recogniser.read, (pixels, bare, reference))
    assert reading["shape"] == plain["shape"] == "heart"
    for fact in LOOK:
        assert reading[fact] == wanted[fact] != plain[fact]


def test_an_empty_prompt_repeats_the_reference(model):
    reference = draw([Scene((Item("star", "yellow"),), "red")])
    with refiners.load_adapter("reference-only").on(model) as adapter:
        made, bare = (
            model.generate("", conditions={adapter: value}, **OPTIONS)
            for value in (reference, None)
        )
    mean = (0, 2, 3)
    far, near = ((x.mean(mean) - reference.mean(mean)).abs().sum() for x in (bare, made))
    assert near < far / 3
    assert torch.isfinite(made).all()
