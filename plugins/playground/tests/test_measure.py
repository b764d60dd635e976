"""Measures count what pictures show: drawn pictures stand for generated ones."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import refiners
import torch
from refiners_playground.lesson.light import LIGHTS, lit
from refiners_playground.lesson.style import LOOK, LOOK_BACKGROUND
from refiners_playground.measure import (
    control,
    image,
    language,
    light,
    palette,
    prompt,
    region,
    speed,
    style,
    subject,
)
from refiners_playground.measure.sampling import generated, named_scenes, placed_scenes
from refiners_playground.random_scene import inked, pair_scene
from refiners_playground.scene import Item, Scene, draw, is_held_out

from refiners_core.measure import Beside, Measure, Settings

Draw = Callable[[Sequence[Scene]], torch.Tensor]
MEASURES = [measure for measure in refiners.measures() if measure.dist == "refiners-playground"]


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets a measure draw scenes in place of pictures of the model."""

    def let(module: Any, pictures: torch.Tensor) -> None:
        monkeypatch.setattr(module, "generated", lambda *_, **__: pictures)

    return let


def halves(scenes: Sequence[Scene], wrong: Callable[[Scene], Scene]) -> torch.Tensor:
    """Draws scenes, every second one of them wrong."""
    return draw([wrong(scene) if row % 2 else scene for row, scene in enumerate(scenes)])


def other_shape(scene: Scene) -> Scene:
    shape = "square" if scene.items[0].shape != "square" else "star"
    return replace(scene, items=(replace(scene.items[0], shape=shape),))


@pytest.mark.parametrize("name", [measure.name for measure in MEASURES])
def test_each_measure_can_be_made_and_says_what_it_measures(name: str):
    measure = refiners.load_measure(name)
    assert measure.summary
    assert measure.adapter in ("", name)
    assert measure.base in ("playground", "playground-writer")
    assert all(path.exists() for path in measure.files)
    assert all(
        f.share_of is None or f.share_of[0] in {g.name for g in measure.figures}
        for f in measure.figures
    )


def test_prompts_are_held_out_and_every_run_has_the_same():
    scenes = named_scenes(64)
    assert scenes == named_scenes(200)[:64]
    assert all(
        is_held_out(scene.items[0].shape, scene.items[0].colour, scene.background)
        for scene in (*scenes, *placed_scenes(64))
    )
    pairs = zip(scenes, placed_scenes(64), strict=True)
    assert all(a.items[0].shape == b.items[0].shape for a, b in pairs)
    assert len({scene.items[0].x for scene in placed_scenes(64)}) == 64


def test_prompts_are_followed_where_the_shape_is_right(drawing):
    drawing(prompt, halves(named_scenes(16), other_shape))
    values = prompt.PlainPrompts().values(None, None, 16)
    assert values == {"shape": 0.5, "colour": 1.0, "background": 1.0}


def test_edges_agree_where_the_object_is_in_its_place(drawing):
    scenes = placed_scenes(16)
    drawing(control, draw(scenes))
    assert min(control.controlnet().values(None, None, 16).values()) > 0.99
    drawing(control, draw(scenes[1:] + scenes[:1]))
    assert max(control.controlnet().values(None, None, 16).values()) < 0.5


def test_lines_that_are_not_requested_cost_f1_but_not_recall(drawing):
    drawing(control, draw([inked(scene) for scene in placed_scenes(16)]))
    values = control.controlnet().values(None, None, 16)
    assert values[control.RECALL] > values[control.F1] + 0.1


def test_an_image_prompt_is_followed_where_every_attribute_is(drawing):
    measure = image.ip_adapter_plus()
    scenes = measure._scenes(16)
    drawing(image, halves(scenes, other_shape))
    values = measure.values(None, None, 16)
    assert values["fill"] >= 0.9
    assert values["shape and fill"] == values["shape"] == 0.5


def test_against_a_prompt_the_shape_is_that_of_the_text(drawing):
    drawing(image, draw(named_scenes(8)))
    assert image.ip_adapter().values(None, None, 8)[image.AGAINST] == 0


def test_ink_is_counted(drawing):
    drawing(style, halves(named_scenes(16), inked))
    values = style.Ink().values(None, None, 16)
    assert values[style.INKED] == 0.5
    assert values["colour"] == values["background"] == 1


def test_the_main_colours_are_those_of_object_and_background(drawing):
    scenes = named_scenes(8)
    drawing(palette, draw(scenes))
    values = palette.Colours().values(None, None, 8)
    assert values[palette.WEIGHTED] < 1
    drawing(palette, draw(scenes[1:] + scenes[:1]))
    assert palette.Colours().values(None, None, 8)[palette.WEIGHTED] > 20


def test_regions_overlap_where_the_object_is_in_its_place(drawing):
    scenes = placed_scenes(16)
    drawing(region, draw(scenes))
    assert region.Regions().values(None, None, 16)[region.OVERLAP] > 0.99
    assert region.Union().values(None, None, 16)[region.OVERLAP] > 0.99
    drawing(region, draw(scenes[1:] + scenes[:1]))
    assert region.Regions().values(None, None, 16)[region.OVERLAP] < 0.5


def test_light_comes_from_the_side_that_is_asked_for(drawing):
    scenes, sides = placed_scenes(16), torch.tensor([*LIGHTS.values()] * 4)
    drawing(light, lit(draw(scenes), sides))
    values = light.Light().values(None, None, 16)
    assert values["side of the light"] >= 0.9
    assert values[region.OVERLAP] >= 0.9
    drawing(light, lit(draw(scenes), -sides))
    assert light.Light().values(None, None, 16)["side of the light"] <= 0.1
    drawing(light, lit(draw(scenes[1:] + scenes[:1]), sides))
    assert light.Light().values(None, None, 16)[region.OVERLAP] <= 0.3


def test_a_word_gives_every_shape_its_look(drawing):
    looks = [
        Scene((replace(LOOK, shape=scene.items[0].shape),), LOOK_BACKGROUND)
        for scene in named_scenes(16)
    ]
    drawing(subject, draw(looks))
    values = subject.Word().values(None, None, 16)
    assert values["look of the word"] >= 0.9
    assert values["shape"] >= 0.9
    assert values[subject.OTHER_COLOURS] <= 0.1


def test_few_steps_are_compared_with_many(drawing):
    scenes = named_scenes(16)
    drawing(speed, halves(scenes, other_shape))
    values = speed.FewSteps().values(None, None, 16)
    assert values["shape, 4 steps"] == values["shape, 30 steps"] == 0.5


def test_free_wording_is_followed_where_all_facts_are(drawing):
    answers = [request.answer for request in language.free_requests(16)]
    scenes = [Scene((Item(a.things[0].shape, a.things[0].colour),), a.background) for a in answers]
    drawing(language, halves(scenes, other_shape))
    values = language.FreeWording().values(None, None, 16)
    assert values["all of shape, colour and background"] == values["shape"] == 0.5
    assert values["background"] == 1
    assert len({request.text for request in language.free_requests(64)}) == 64


def test_two_objects_are_related_as_the_prompt_says(monkeypatch: pytest.MonkeyPatch):
    random = Random(31)
    scenes = [pair_scene(random, patterned=0.0, held_out=True) for _ in range(6)]
    first, second = scenes[1].items
    swapped = replace(
        scenes[1],
        items=(replace(second, x=first.x, y=first.y), replace(first, x=second.x, y=second.y)),
    )
    single = replace(scenes[2], items=scenes[2].items[:1])
    read = [scenes[0], swapped, single, *scenes[3:]]
    reader = SimpleNamespace(read_scenes=lambda pixels: read)
    monkeypatch.setattr(prompt, "recogniser", lambda: reader)
    monkeypatch.setattr(prompt, "generated", lambda *_: torch.zeros(6, 3, 64, 64))
    outcomes = prompt.Pairs().run(None, None, 6, Settings()).outcomes
    assert outcomes["both objects"] == [1, 1, 0, 1, 1, 1]
    assert outcomes["relation"] == [1, 0, 0, 1, 1, 1]
    assert outcomes["background"] == [1] * 6


def test_a_batch_does_not_change_a_sample_and_others_act_beside():
    model, prompts = refiners.load_model("playground"), ["a red heart", "a blue star"]
    settings = Settings(seed=3, steps=2)
    together = generated(model, prompts, settings)
    apart = generated(model, prompts, replace(settings, batch=1))
    assert torch.allclose(together, apart, atol=1e-4)
    with refiners.load_adapter("lora-ink").on(model) as ink:
        assert torch.equal(generated(model, prompts, settings), together)
        alone = generated(model, prompts, settings, ink)
        beside = generated(model, prompts, replace(settings, beside={ink: Beside()}))
        weak = generated(model, prompts, replace(settings, scale=0.0), ink)
    assert torch.equal(alone, beside)
    assert not torch.equal(alone, together)
    assert torch.equal(weak, together)


@pytest.mark.slow
@pytest.mark.parametrize("name", [measure.name for measure in MEASURES])
def test_every_measure_runs(name: str):
    measure: Measure = refiners.load_measure(name)
    model = refiners.load_model(measure.base, kind=import_module("refiners_core").Model)
    samples = measure.run(model, None, 4, Settings(steps=1))
    for figure in measure.figures:
        assert len(samples.outcomes[figure.name]) >= 4
        assert isinstance(figure.statistic(samples.outcomes[figure.name]), float)
