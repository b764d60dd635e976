from random import Random

import pytest
import refiners
import torch
from refiners_playground.measure import aligned
from refiners_playground.measure.aligned import END, GROUP, SHIFT, Aligned
from refiners_playground.measure.sampling import generated
from refiners_playground.scene import SHAPES, Item, Scene, draw

from refiners_core.measure import Settings
from refiners_core.testing import tiny_model


def test_pictures_are_compared_with_the_first_of_their_batch(monkeypatch: pytest.MonkeyPatch):
    prompted: list[str] = []

    def pictures(model, prompts, settings, adapter, **options):
        prompted.extend(prompts)
        shapes = [prompt.removeprefix("a large ") for prompt in prompts]
        looks = [("red", "blue"), ("red", "blue"), ("red", "white"), ("green", "blue")] * 2
        wrong = {3: next(s for s in SHAPES if s != shapes[3])}
        wrong |= {7: next(s for s in SHAPES if s != shapes[7])}
        drawn = [wrong.get(i, shape) for i, shape in enumerate(shapes)]
        return draw([Scene((Item(s, c),), b) for s, (c, b) in zip(drawn, looks, strict=True)])

    monkeypatch.setattr(aligned, "generated", pictures)
    samples = Aligned().run(tiny_model(), None, 6, Settings())
    assert samples.outcomes == {
        "background of the first": [1, 0, 1] * 2,
        "colour of the first": [1, 1, 0] * 2,
        "prompted shape": [1, 1, 0] * 2,
    }
    assert samples.pictures is not None
    assert len(samples.pictures) == len(samples.titles) == 6
    random = Random(13)
    groups = [random.sample(SHAPES, GROUP) for _ in range(2)]
    assert prompted == [f"a large {shape}" for group in groups for shape in group]


def test_the_pictures_of_a_batch_share_a_style_and_the_first_stays():
    model, settings = refiners.load_model("playground"), Settings(seed=7, steps=6)
    prompts = [f"a large {shape}" for shape in SHAPES[:2]]
    apart = generated(model, prompts, settings)
    with refiners.load_adapter("style-aligned", shift=SHIFT).on(model) as adapter:
        together = generated(model, prompts, settings, adapter, end=END)
    assert torch.equal(together[0], apart[0])
    assert spread(together) < 0.5 * spread(apart)


def spread(pictures: torch.Tensor) -> float:
    """Returns the deviation of the pictures' border colours."""
    return pictures[:, :, 0].mean(2).std(0).mean().item()
