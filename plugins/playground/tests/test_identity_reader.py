from random import Random

import numpy as np
import torch
from refiners_playground.face import (
    PARAMETERS,
    draw_faces,
    identities,
    keypoints,
)
from refiners_playground.face_detector import FaceDetector
from refiners_playground.identity_reader import WEIGHTS, determination, load_identity_reader
from refiners_playground.picture import draw_pictures
from refiners_playground.random_scene import canonical_scene, pair_scene, posed_face

HELD_OUT = range(7, 7 + 8 * 128, 8)
"""The numbers of 128 people who are held out from training."""


def posed(seed: int):
    random = Random(seed)
    return [posed_face(random, number) for number in HELD_OUT]


def test_the_reader_reads_people_whom_it_has_never_seen():
    faces = posed(0)
    reading = load_identity_reader()(draw_faces(faces))
    shares = determination(reading.parameters, identities(faces))
    assert sum(shares.values()) / len(PARAMETERS) >= 0.9
    assert min(shares.values()) >= 0.8
    assert (reading.points - keypoints(faces)).norm(dim=2).mean() <= 1


def test_the_embedding_tells_people_apart_in_any_pose():
    reader = load_identity_reader()
    first, second = (reader.embed(draw_faces(posed(seed))) for seed in (0, 1))
    assert torch.allclose(first.norm(dim=1), torch.ones(len(first)))
    likeness = first @ second.T
    assert (likeness.argmax(1) == torch.arange(len(first))).float().mean() >= 0.8
    assert likeness.diagonal().mean() - likeness.mean() >= 0.5


def test_a_perfect_reading_determines_everything_and_a_constant_one_nothing():
    true = identities(posed(0))
    assert set(determination(true, true).values()) == {1.0}
    means = true.mean(0).expand_as(true)
    assert all(abs(share) < 1e-5 for share in determination(means, true).values())
    assert list(determination(true, true)) == list(PARAMETERS)


def test_the_weights_are_small():
    assert WEIGHTS.stat().st_size <= 800_000


def levels(pictures) -> list[np.ndarray]:
    """Returns pictures in BGR order, as OpenCV reads them."""
    pixels = (draw_pictures(pictures, 128) * 255).round().to(torch.uint8)
    return [picture.permute(1, 2, 0).numpy()[..., ::-1] for picture in pixels]


def test_the_detector_finds_the_face_with_its_points_in_a_picture_of_any_size():
    faces = posed(2)[:16]
    detector = FaceDetector()
    detected = [detector.get(image) for image in levels(faces)]
    assert all(len(found) == 1 for found in detected)
    points = torch.stack([torch.from_numpy(found[0].kps) for found in detected])
    assert (points - keypoints(faces, 128)).norm(dim=2).mean() <= 2
    assert detected[0][0].embedding.shape == (64,)


def test_the_detector_finds_no_face_where_there_are_objects():
    random = Random(3)
    detector = FaceDetector()
    scenes = [make(random) for make in (canonical_scene, pair_scene) for _ in range(12)]
    assert not any(detector.get(image) for image in levels(scenes))
