"""The reader of identities tells people apart on faces that it was not trained on."""

import numpy as np
import pytest
import torch
from refiners_playground.face import Face, draw_faces, held_out_identities, identities, keypoints
from refiners_playground.identity_reader import (
    LENGTH,
    WIDTH,
    FaceDetector,
    determination,
    load_identity_reader,
)

from refiners_core.models.face import Detector, FacePack, largest_face


@pytest.fixture(scope="module")
def reader():
    return load_identity_reader()


@pytest.fixture(scope="module")
def faces():
    people = held_out_identities(32)
    looks = [("red", "white"), ("blue", "green"), ("black", "yellow"), ("purple", "cyan")]
    return [
        Face(identity, *looks[i % 4], x=0.05 * (i % 3 - 1), scale=0.95, angle=0.03 * (i % 5 - 2))
        for i, identity in enumerate(people)
    ]


def test_it_reads_identities_and_keypoints_of_people_held_out(reader, faces):
    reading = reader(draw_faces(faces))
    shares = determination(reading.parameters, identities(faces))
    assert min(shares.values()) > 0.9
    assert (reading.points - keypoints(faces)).norm(dim=-1).mean() < 1.5


def test_embeddings_follow_the_person_and_not_the_look(reader, faces):
    others = [
        Face(face.identity, "pink", "orange", x=-face.x, scale=1.0, angle=-face.angle)
        for face in faces
    ]
    first, second = reader.embed(draw_faces(faces)), reader.embed(draw_faces(others))
    assert first.shape == (32, WIDTH)
    assert torch.allclose(first.norm(dim=-1), torch.tensor(LENGTH))
    similar = (first @ second.T) / LENGTH**2
    matched = (similar.argmax(1) == torch.arange(32)).float().mean()
    assert matched > 0.8


def test_it_detects_faces_in_pictures_of_any_size(reader, faces):
    detector = FaceDetector(reader)
    assert isinstance(detector, Detector)
    pack = FacePack("playground", (), "", False, width=WIDTH)
    small, large = draw_faces(faces[:1])[0], draw_faces(faces[:1], 128)[0]
    found, larger = (largest_face(pixels, detector, "id", pack) for pixels in (small, large))
    levels = (small * 255).round() / 255
    expected = reader.embed(levels[None])[0]
    assert torch.allclose(found.embedding, expected, atol=1e-3)
    assert torch.nn.functional.cosine_similarity(larger.embedding, expected, dim=0) > 0.9
    ratio = larger.keypoints / found.keypoints
    assert np.allclose(ratio, 2, atol=0.15)
