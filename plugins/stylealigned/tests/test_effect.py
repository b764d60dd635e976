"""On the playground, a prompt takes the style of a given picture and keeps its shape."""

from typing import Any

import refiners
from refiners_playground.recogniser import load_recogniser
from refiners_playground.scene import Item, Scene, draw

from refiners_core import Condition


def test_a_prompt_takes_the_style_of_a_picture():
    model, recogniser = refiners.load_model("playground"), load_recogniser()
    picture = draw([Scene((Item("ring", "green"),), "red")])
    prompts = ["a large green ring on a red background", "a large star"]
    options: dict[str, Any] = {"seed": 7, "steps": 12, "output": "tensor", "progress": False}
    adapter = refiners.load_adapter("style-aligned", model, inversion_guidance=1.25, shift=1)
    made, plain = (
        recogniser.read(model.generate(prompts, conditions={adapter: value}, **options))
        for value in (Condition(picture, end=0.7), None)
    )
    look = [(item["colour"], item["background"]) for item in made]
    assert look == [("green", "red")] * 2
    assert [item["shape"] for item in made] == ["ring", "star"]
    assert plain[1]["shape"] == "star"
    assert plain[1]["colour"] != "green"
    assert plain[1]["background"] != "red"
