"""Frames: flips before crops, size ids, buckets."""

from random import Random

import numpy as np
import pytest
import torch
from refiners_train.data.bucket import Buckets
from refiners_train.data.data_error import DataError
from refiners_train.data.framing import Frame, Framing

from .pictures import gradient


def pixels(width: int, height: int) -> torch.Tensor:
    return torch.from_numpy(np.array(gradient(width, height))).permute(2, 0, 1) / 255


def test_the_corner_is_that_of_the_flipped_picture():
    picture = pixels(100, 60)
    frame = Frame((60, 100), (60, 100), True, (0, 10), (60, 40))
    assert torch.equal(frame.picture(picture), picture.flip(-1)[:, :, 10:50])


@pytest.mark.parametrize("crop", ["center", "random"])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_shown_pixels_begin_at_the_corner(crop, flip):
    picture = pixels(96, 64)
    frame = Framing(crop, flip).frame((64, 96), (64, 40), Random(3))
    shown = picture.flip(-1) if flip else picture
    top, left = frame.corner
    assert torch.equal(frame.picture(picture), shown[:, top : top + 64, left : left + 40])
    assert frame.original == (64, 96)


def test_a_mask_is_framed_as_its_picture():
    picture = torch.zeros(1, 50, 90)
    picture[:, 10:30, 20:35] = 1
    frame = Framing("random", 1.0).frame((50, 90), (32, 32), Random(1))
    assert (frame.mask(picture) - frame.picture(picture)).abs().mean() < 0.02
    half = torch.nn.functional.interpolate(picture[None], (25, 45), mode="area")[0]
    assert (frame.mask(half) - frame.picture(picture)).abs().mean() < 0.05


@pytest.mark.parametrize("original", [(7, 700), (700, 7), (31, 33), (64, 64)])
def test_every_shape_covers_the_size(original):
    frame = Framing("random", 0.5).frame(original, (32, 48), Random(0))
    assert frame.picture(torch.rand(3, *original)).shape == (3, 32, 48)


def test_flips_happen_as_often_as_asked():
    random = Random(0)
    frames = [Framing(flip=0.25).frame((8, 8), (8, 8), random) for _ in range(2000)]
    assert sum(frame.is_flipped for frame in frames) / 2000 == pytest.approx(0.25, abs=0.03)


def test_the_bucket_is_the_one_of_the_nearest_shape():
    buckets = Buckets(area=512 * 512, step=64)
    assert all(height * width <= 512 * 512 for height, width in buckets.sizes)
    assert all(side % 64 == 0 for size in buckets.sizes for side in size)
    assert {(width, height) for height, width in buckets.sizes} == set(buckets.sizes)
    assert buckets.size((1000, 1000)) == (512, 512)
    assert buckets.size((400, 600)) == (384, 640)
    assert buckets.size((6000, 4000)) == (640, 384)
    assert buckets.size((100, 900)) == min(buckets.sizes, key=lambda size: size[0] / size[1])


def test_buckets_that_no_side_fits_are_refused():
    with pytest.raises(DataError, match="multiples of 64"):
        Buckets(area=1000, step=64)
