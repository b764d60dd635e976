from random import Random

import pytest
import refiners
import torch
from refiners_playground import alignment
from refiners_playground.alignment import aligned_effect, aligned_pictures
from refiners_playground.effect import Settings
from refiners_playground.scene import SHAPES, Item, Scene, draw

from refiners_core.testing import tiny_model


def test_pictures_are_compared_with_the_first_of_their_batch(monkeypatch: pytest.MonkeyPatch):
    prompted: list[list[str]] = []

    def pictures(model, aligned, shapes, seed, settings):
        prompted.append(list(shapes))
        looks = [("red", "blue"), ("red", "blue"), ("red", "white"), ("green", "blue")]
        drawn = [*shapes[:3], next(s for s in SHAPES if s != shapes[3])]
        return draw([Scene((Item(s, c),), b) for s, (c, b) in zip(drawn, looks, strict=True)])

    monkeypatch.setattr(alignment, "aligned_pictures", pictures)
    shares = aligned_effect(tiny_model(), None, 6, Settings())
    assert shares == {"background": 2 / 3, "colour": 2 / 3, "shape": 2 / 3}
    random = Random(13)
    assert prompted == [random.sample(SHAPES, 4) for _ in range(2)]


def test_the_pictures_of_a_batch_share_a_style_and_the_first_stays():
    model, settings, shapes = refiners.load_model("playground"), Settings(steps=6), SHAPES[:2]
    apart = aligned_pictures(model, None, shapes, 7, settings)
    with refiners.load_adapter("style-aligned", shift=alignment.SHIFT).on(model) as aligned:
        together = aligned_pictures(model, aligned, shapes, 7, settings)
    assert torch.equal(together[0], apart[0])
    assert spread(together) < 0.5 * spread(apart)


def spread(pictures: torch.Tensor) -> float:
    """Returns the deviation of the pictures' border colours."""
    return pictures[:, :, 0].mean(2).std(0).mean().item()
