"""Keypoints are drawn as in the released code."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refiners_instantid.keypoint import draw, keypoint_pixels

from refiners_core.errors import ConditionError

POINTS = torch.tensor([[60.4, 70], [130, 62], [101, 108.7], [77, 150], [136, 141]])


def test_the_drawing_matches_opencvs():
    """The picture was drawn by OpenCV: ellipses and discs with the numbers of the released code."""
    with Image.open(Path(__file__).with_name("keypoints.png")) as image:
        theirs = np.asarray(image)
    ours = (draw(POINTS, (192, 208)) * 255).round().byte().permute(1, 2, 0).numpy()
    assert ours.shape == theirs.shape
    painted = theirs.any(-1)
    assert (ours != theirs).any(-1).sum() <= 0.015 * painted.sum()


def test_limbs_lead_to_the_nose_in_darker_colours_of_their_points():
    pixels = draw(POINTS, (192, 208))
    for (x, y), colour in zip(
        POINTS.int().tolist(),
        [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1)],
        strict=True,
    ):
        assert pixels[:, y, x].tolist() == list(colour)
        assert pixels[:, y, x - 10].tolist() == list(colour)
    x, y = ((POINTS[0] + POINTS[2]) / 2).int().tolist()
    assert pixels[:, y, x].tolist() == pytest.approx([0.6, 0, 0])
    assert not pixels[:, 0].any()


def test_points_that_coincide_or_lie_outside_can_be_drawn():
    assert draw(torch.full((5, 2), 20.0), (40, 40))[2].any()
    assert draw(torch.full((5, 2), -5.0), (40, 40)).shape == (3, 40, 40)


@pytest.mark.parametrize(
    "points", [POINTS, POINTS[None], POINTS.numpy(), POINTS.tolist(), POINTS.long(), [POINTS]]
)
def test_points_may_be_tensors_arrays_and_lists(points: object):
    pixels = keypoint_pixels(points, (192, 208), "id")
    assert pixels.shape == (1, 3, 192, 208)
    assert (pixels != draw(POINTS, (192, 208))).float().mean() < 0.01  # whole numbers round


def test_there_may_be_five_points_per_picture():
    pixels = keypoint_pixels(torch.stack([POINTS, POINTS + 5]), (192, 208), "id")
    assert torch.equal(pixels[1], draw(POINTS + 5, (192, 208)))


def test_a_picture_of_keypoints_is_resized():
    drawn = draw(POINTS, (192, 208))
    image = Image.fromarray((drawn * 255).byte().permute(1, 2, 0).numpy())
    assert torch.equal(keypoint_pixels(drawn, (192, 208), "id")[0], drawn)
    assert torch.allclose(keypoint_pixels(image, (192, 208), "id")[0], drawn, atol=0.01)
    assert keypoint_pixels([image, image], (96, 104), "id").shape == (2, 3, 96, 104)


def test_points_on_the_border_are_inside_the_picture():
    corner = torch.tensor([[0.0, 0], *POINTS[1:].tolist()])
    assert keypoint_pixels(corner, (192, 208), "id").shape == (1, 3, 192, 208)
    corner[0] = torch.tensor([0.0, 192])
    with pytest.raises(ConditionError, match=r"at \(0, 192\), outside the picture of 208 x 192"):
        keypoint_pixels(corner, (192, 208), "id")
