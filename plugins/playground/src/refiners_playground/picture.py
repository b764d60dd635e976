"""Pictures of either kind, scenes and faces, drawn in one batch."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_playground.face import Face, draw_faces
from refiners_playground.scene import SIZE, Scene, draw

Picture = Scene | Face


def draw_pictures(
    pictures: Sequence[Picture], size: int = SIZE
) -> Float[Tensor, "batch 3 size size"]:
    """Draws scenes and faces as RGB pictures in 0...1, in their order, on torch's default device.

    Args:
        pictures: The pictures; equal ones give equal pixels.
        size: Width and height in pixels.
    """
    scenes = [(row, picture) for row, picture in enumerate(pictures) if isinstance(picture, Scene)]
    faces = [(row, picture) for row, picture in enumerate(pictures) if isinstance(picture, Face)]
    if not faces:
        return draw([scene for _, scene in scenes], size)
    if not scenes:
        return draw_faces([face for _, face in faces], size)
    drawn = torch.empty(len(pictures), 3, size, size)
    drawn[torch.tensor([row for row, _ in scenes])] = draw([scene for _, scene in scenes], size)
    drawn[torch.tensor([row for row, _ in faces])] = draw_faces([face for _, face in faces], size)
    return drawn
