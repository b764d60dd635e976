"""The drawing of poses, by the colours and places of joints and limbs."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from refiners_preprocessors import draw_keypoints
from refiners_preprocessors.keypoint import JOINTS

from refiners_core.errors import ConditionError

SIZE = (200, 100)


def person(**places: tuple[float, float]) -> Any:
    """Returns the keypoints of a person with some joints; spaces in names are written `_`."""
    joints = np.full((18, 2), np.nan)
    for name, place in places.items():
        joints[JOINTS.index(name.replace("_", " "))] = place
    return joints


ARM = person(right_elbow=(0.25, 0.5), right_wrist=(0.75, 0.5))


def test_joints_are_discs_and_limbs_are_darker():
    drawing = draw_keypoints(ARM, size=SIZE)
    assert (drawing.size, drawing.mode) == (SIZE, "RGB")
    assert drawing.getpixel((50, 50)) == (255, 255, 0)  # the elbow: red, orange, amber, yellow
    assert drawing.getpixel((150, 50)) == (170, 255, 0)
    assert drawing.getpixel((100, 50)) == (153, 153, 0)  # the fourth limb, at 0.6
    assert drawing.getpixel((100, 53)) == (153, 153, 0)
    assert drawing.getpixel((100, 56)) == drawing.getpixel((160, 50)) == (0, 0, 0)


def test_a_limb_needs_both_joints():
    alone = draw_keypoints(person(neck=(0.5, 0.5), right_elbow=(0.2, 0.2)), size=SIZE)
    assert alone.getpixel((100, 50)) == (255, 85, 0)
    assert alone.getpixel((70, 35)) == (0, 0, 0)
    assert alone.getpixel((40, 20)) == (255, 255, 0)


def test_all_eighteen_joints_have_a_colour_and_seventeen_limbs_connect_them():
    circle = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    joints = np.stack([0.5 + 0.4 * np.cos(circle), 0.5 + 0.4 * np.sin(circle)], axis=1)
    drawing = draw_keypoints(joints, size=(600, 600), width=2)
    colours = {tuple(colour) for colour in np.asarray(drawing).reshape(-1, 3)} - {(0, 0, 0)}
    assert len(colours) == 18 + 17


def test_a_joint_of_little_confidence_is_missing():
    sure = np.concatenate([ARM, np.full((18, 1), 0.9)], axis=1)
    assert draw_keypoints(sure, size=SIZE) == draw_keypoints(ARM, size=SIZE)
    sure[JOINTS.index("right wrist"), 2] = 0.2
    elbow = person(right_elbow=(0.25, 0.5))
    assert draw_keypoints(sure, size=SIZE) == draw_keypoints(elbow, size=SIZE)
    assert draw_keypoints(sure, size=SIZE, threshold=0.1) == draw_keypoints(ARM, size=SIZE)


def test_people_are_drawn_from_any_array():
    both = np.stack([ARM, person(nose=(0.5, 0.1))])
    drawing = draw_keypoints(both, size=SIZE)
    assert drawing.getpixel((100, 10)) == (255, 0, 0)
    assert drawing.getpixel((50, 50)) == (255, 255, 0)
    for form in (both.tolist(), torch.from_numpy(both)):
        assert draw_keypoints(form, size=SIZE) == drawing
    assert draw_keypoints(np.zeros((0, 18, 2)), size=SIZE) == Image.new("RGB", SIZE)


def test_joints_beyond_the_picture_are_cut_off():
    beyond = person(right_elbow=(-0.2, 0.5), right_wrist=(0.5, 0.5))
    assert draw_keypoints(beyond, size=SIZE).getpixel((5, 50)) == (153, 153, 0)


@pytest.mark.parametrize(
    ("people", "options", "message", "hint"),
    [
        (Image.new("RGB", (8, 8)), {"size": SIZE}, "a picture is given", "openpose"),
        (np.zeros((17, 2)), {"size": SIZE}, "this is of shape", "OpenPose's order"),
        (np.zeros((1, 18, 4)), {"size": SIZE}, "of shape", "OpenPose's order"),
        ("pose.json", {"size": SIZE}, "this is a str", "OpenPose's order"),
        ({"people": []}, {"size": SIZE}, "this is a dict", "OpenPose's order"),
        (ARM * 200, {"size": SIZE}, "these are pixels", "Divide them: keypoints / (width"),
        (ARM, {}, "the size of the picture", "size=(512, 512)"),
        (ARM, {"size": SIZE, "width": 0}, "width is a whole number", "width=4"),
        (ARM, {"size": SIZE, "threshold": 2.0}, "threshold is a number", "threshold=0.3"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    people: Any, options: dict[str, Any], message: str, hint: str
):
    with pytest.raises(ConditionError, match=message) as error:
        draw_keypoints(people, **options)
    assert hint in error.value.hint
