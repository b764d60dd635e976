from dataclasses import replace
from random import Random

import pytest
import torch
from refiners_playground.face import (
    BROW,
    MOUTH,
    PARAMETERS,
    POINT_COLOURS,
    SKINS,
    Face,
    Identity,
    draw_faces,
    draw_keypoints,
    held_out_identities,
    identities,
    identity_at,
    is_held_out_identity,
    keypoint_map,
    keypoints,
)
from refiners_playground.random_scene import posed_face, random_face, random_identity
from refiners_playground.scene import COLOURS


def faces_of(count: int, seed: int = 0) -> list[Face]:
    random = Random(seed)
    return [random_face(random) for _ in range(count)]


def plain(**numbers: float) -> Face:
    return Face(Identity(**numbers), "orange", "cyan", scale=0.9)


def test_a_face_gives_the_same_pixels_alone_or_among_others():
    faces = faces_of(70)
    together = draw_faces(faces)
    assert together.shape == (70, 3, 64, 64)
    assert together.min() >= 0
    assert together.max() <= 1
    assert torch.equal(together[69:], draw_faces(faces[69:]))
    assert draw_faces([]).shape == (0, 3, 64, 64)


def test_a_face_has_its_hair_and_leaves_the_corners_to_the_background():
    picture = draw_faces([plain()])[0]
    orange, cyan = (torch.tensor(COLOURS[name]).view(3, 1) for name in ("orange", "cyan"))
    assert torch.allclose(picture[:, [0, 0, -1, -1], [0, -1, 0, -1]], cyan.expand(3, 4))
    share = (picture.flatten(1) - orange).abs().amax(0).lt(1e-6).float().mean()
    assert 0.05 < share < 0.3


@pytest.mark.parametrize("name", PARAMETERS)
def test_each_number_of_an_identity_changes_many_pixels(name: str):
    low, high = draw_faces([plain(**{name: 0.0}), plain(**{name: 1.0})])
    assert (low - high).abs().amax(0).gt(0.2).sum() >= 16


def test_fine_features_of_the_smallest_face_are_four_pixels_thick():
    faces = [replace(plain(nose_length=1.0, skin_tone=0.0), angle=angle) for angle in (0.0, 0.1)]
    for picture in draw_faces(faces):
        skin, mouth = torch.tensor(SKINS[0]), torch.tensor(MOUTH)
        for line, colour in (
            (picture[:, 38:, 32], mouth),
            (picture[:, 36, 24:40], 0.62 * skin),
            (picture[:, 16:28, 24], torch.tensor(BROW)),
        ):
            to_feature, to_skin = ((line - c.view(3, 1)).norm(dim=0) for c in (colour, skin))
            assert (to_feature < to_skin).sum() >= 4


def test_keypoints_lie_on_the_features():
    random = Random(3)
    faces = [posed_face(random, number) for number in range(40)]
    pictures, points = draw_faces(faces, 256), keypoints(faces, 256)
    assert points.shape == (40, 5, 2)
    for picture, (left, right, *_, corner) in zip(pictures, points.long().tolist(), strict=True):
        for x, y in (left, right):
            assert picture[:, y, x].max() < 0.2  # pupils are nearly black
        red, green, _ = picture[:, corner[1], corner[0]].tolist()
        assert red > 2 * green


def test_points_are_named_from_left_to_right_as_in_the_picture():
    [(left_eye, right_eye, nose, left_mouth, right_mouth)] = keypoints([plain()]).tolist()
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]


def test_the_corners_of_a_smile_lie_above_its_middle():
    sad, smiling = keypoints([plain(mouth_curve=0.0), plain(mouth_curve=1.0)])
    assert smiling[3, 1] < sad[3, 1] - 4


def test_a_turned_and_shifted_face_has_turned_and_shifted_points():
    straight, moved = keypoints([plain(), replace(plain(), x=0.25, y=-0.125)])
    assert torch.allclose(moved - straight, torch.tensor([8.0, -4.0]).expand(5, 2), atol=1e-4)
    turned = keypoints([replace(plain(), angle=torch.pi / 2)])[0]
    dx, dy = (straight - 32).unbind(1)
    assert torch.allclose(turned - 32, torch.stack([-dy, dx], 1), atol=1e-3)


def test_the_map_of_keypoints_has_a_disc_of_each_colour_where_the_point_is():
    faces = faces_of(12)
    maps, points = keypoint_map(faces), keypoints(faces)
    assert torch.equal(maps, draw_keypoints(points))
    for row in range(12):
        for (x, y), colour in zip(points[row].long().tolist(), POINT_COLOURS, strict=True):
            assert torch.allclose(maps[row, :, y, x], torch.tensor(colour))
    assert maps[:, :, 0].eq(0).all()


def test_each_number_is_another_person_and_the_same_on_every_run():
    assert identity_at(7) == identity_at(7)
    assert len({identity_at(number) for number in range(200)}) == 200
    first = identity_at(0)
    assert (first.face_width, first.hair_length) == (0.8341, 0.835)


def test_one_person_in_eight_is_held_out_from_training():
    random = Random(5)
    assert not any(is_held_out_identity(random_identity(random)) for _ in range(300))
    assert all(is_held_out_identity(random_identity(random, held_out=True)) for _ in range(20))
    assert held_out_identities(2) == [identity_at(7), identity_at(15)]


def test_identities_are_rows_of_numbers():
    faces = faces_of(3)
    rows = identities(faces)
    assert rows.shape == (3, 10)
    assert rows[1, PARAMETERS.index("skin_tone")] == pytest.approx(faces[1].identity.skin_tone)
