"""Lessons of faces: the identity of a face, and its keypoints."""

from random import Random
from typing import Any

import torch
from torch import Tensor

from refiners_playground.curriculum import lesson_caption
from refiners_playground.face import Face, draw_faces, is_held_out_identity, keypoint_map
from refiners_playground.identity_reader import load_identity_reader
from refiners_playground.lesson.example import CHUNK, Caption, Lesson, drawing_device, in_bytes
from refiners_playground.random_scene import IDENTITIES, posed_face


def identified(count: int = 12000) -> Lesson:
    """Returns faces with the embedding of another picture of the same person, the condition
    `face`.

    Args:
        count: The number of faces.
    """
    faces, others, captions = posed_twice(count)
    values = {"face": embeddings(others)}
    return Lesson(f"identities {count}", in_bytes(draw_faces, faces), captions, values)


def identified_and_placed(count: int = 12000) -> Lesson:
    """Returns faces with the embedding of another picture of the same person, the condition
    `face`, and a map of their own keypoints, the condition `keypoints`.

    Args:
        count: The number of faces.
    """
    faces, others, captions = posed_twice(count)
    values = {"face": embeddings(others), "keypoints": in_bytes(keypoint_map, faces)}
    return Lesson(f"placed identities {count}", in_bytes(draw_faces, faces), captions, values)


def posed_twice(count: int) -> tuple[list[Face], list[Face], Caption]:
    """Returns two pictures of each of many people, and the captions of the first.

    Args:
        count: The number of people; none of them is held out from training.
    """
    random = Random("posed twice")
    numbers = [n for n in range(IDENTITIES) if not is_held_out_identity(n)]
    people = [numbers[index % len(numbers)] for index in range(count)]
    faces = [posed_face(random, number) for number in people]
    others = [posed_face(random, number) for number in people]

    def caption(index: int, random: Random) -> str:
        return lesson_caption("faces", faces[index], random)

    return faces, others, caption


@torch.no_grad()
def embeddings(faces: Any) -> Tensor:
    """Returns the embeddings of faces, by the reader of identities."""
    device = drawing_device()
    reader = load_identity_reader().to(device)
    parts = [faces[start : start + CHUNK] for start in range(0, len(faces), CHUNK)]
    with torch.device(device):
        return torch.cat([reader.embed(draw_faces(part)).cpu() for part in parts])
