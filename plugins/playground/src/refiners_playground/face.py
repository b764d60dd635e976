"""Faces that a program draws: ten numbers of an identity, a pose, hair and a background.

The identity of a face is what an adapter for faces carries over; hair and background are what a
prompt names. A face spans about a picture, whose coordinates are those of
`refiners_playground.scene`.
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from random import Random

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_playground.scene import COLOURS, SIZE, chunk_length

SKINS: tuple[tuple[float, float, float], ...] = ((0.99, 0.86, 0.76), (0.42, 0.26, 0.17))
"""The lightest and the darkest skin."""
LINE = 0.15
"""The thickness of brows, nose and mouth in units of half a picture: 4 pixels in the smallest
face."""
EYE_HEIGHT, BROW_HEIGHT, NOSE_HEIGHT, MOUTH_HEIGHT, FRINGE = -0.10, -0.31, -0.02, 0.39, -0.47
"""Where features lie on a face, downwards from its centre."""
BROW_LENGTH, HAIR_MARGIN = 0.11, 0.13
BROW, WHITE, PUPIL, MOUTH = (
    (0.16, 0.10, 0.08),
    (0.98, 0.98, 0.98),
    (0.06, 0.08, 0.14),
    (0.74, 0.08, 0.16),
)
POINTS: tuple[str, ...] = ("left eye", "right eye", "nose", "left mouth", "right mouth")
"""The keypoints of a face, as they lie in the picture."""
POINT_COLOURS: tuple[tuple[float, float, float], ...] = (
    (1.0, 0.0, 0.0),
    (0.0, 1.0, 0.0),
    (0.0, 0.0, 1.0),
    (1.0, 1.0, 0.0),
    (1.0, 0.0, 1.0),
)
LIMB_BRIGHTNESS = 0.6
"""The brightness of a limb, which has the colour of the point that it joins to the nose."""
POINT_RADIUS, LIMB_WIDTH = 2.5, 2.0
"""The radius of points and the width of limbs in a map of keypoints, in pixels (of 64)."""
HELD_OUT_PERIOD = 8


@dataclass(frozen=True)
class Identity:
    """The ten numbers of a person, each in 0...1."""

    face_width: float = 0.5
    face_height: float = 0.5
    eye_distance: float = 0.5
    eye_size: float = 0.5
    brow_tilt: float = 0.5
    """From raised inner ends (0) to raised outer ends (1)."""
    nose_length: float = 0.5
    mouth_width: float = 0.5
    mouth_curve: float = 0.5
    """From corners that point down (0) to corners that point up (1)."""
    skin_tone: float = 0.5
    """From light (0) to dark (1)."""
    hair_length: float = 0.5
    """From ears (0) to chin (1)."""


PARAMETERS: tuple[str, ...] = tuple(field.name for field in fields(Identity))
"""The names of the ten numbers of an identity."""


@dataclass(frozen=True)
class Face:
    """A picture of a face: who it is, and how the person is shown.

    Attributes:
        identity: The features of the person.
        hair: The colour of the hair.
        background: The colour of the background.
        x: The centre from left (-1) to right (1).
        y: The centre from top (-1) to bottom (1).
        scale: The size; 1 fills the picture's height.
        angle: The rotation in radians, clockwise.
    """

    identity: Identity
    hair: str
    background: str
    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    angle: float = 0.0


def identity_at(index: int) -> Identity:
    """Returns the identity with a number; each number is another person, the same on every run."""
    random = Random(f"identity {index}")
    return Identity(*(round(random.random(), 4) for _ in PARAMETERS))


def is_held_out_identity(index: int) -> bool:
    """Whether the identity with a number is held out from training, as one in eight is."""
    return index % HELD_OUT_PERIOD == HELD_OUT_PERIOD - 1


def held_out_identities(count: int) -> list[Identity]:
    """Returns the first identities that are held out from training."""
    first = HELD_OUT_PERIOD - 1
    return [identity_at(first + HELD_OUT_PERIOD * row) for row in range(count)]


def identities(faces: Sequence[Face]) -> Float[Tensor, "batch 10"]:
    """Returns the numbers of identities, in the order of `PARAMETERS`."""
    return torch.tensor([astuple(face.identity) for face in faces]).view(-1, len(PARAMETERS))


def draw_faces(faces: Sequence[Face], size: int = SIZE) -> Float[Tensor, "batch 3 size size"]:
    """Draws faces as RGB pictures in 0...1, on torch's default device.

    Args:
        faces: The faces; equal faces give equal pixels.
        size: Width and height in pixels.
    """
    if not faces:
        return torch.zeros(0, 3, size, size)
    step = chunk_length()
    chunks = [faces[start : start + step] for start in range(0, len(faces), step)]
    return torch.cat([_draw_chunk(chunk, size) for chunk in chunks])


def keypoints(faces: Sequence[Face], size: int = SIZE) -> Float[Tensor, "batch 5 2"]:
    """Returns the coordinates x and y of `POINTS`, in pixels of a picture `size` pixels wide.

    The centre of the upper left pixel is at (0.5, 0.5).
    """
    shape = _Measures(faces)
    zero = torch.zeros_like(shape.eye_distance)
    across = [-shape.eye_distance, shape.eye_distance, zero, -shape.mouth_width, shape.mouth_width]
    eyes, corners = zero + EYE_HEIGHT, MOUTH_HEIGHT - shape.mouth_curve
    down = [eyes, eyes, NOSE_HEIGHT + shape.nose_length, corners, corners]
    u, v = (torch.stack(line, 1).flatten(1) for line in (across, down))
    x0, y0, scale, cosine, sine = (column.flatten(1) for column in shape.pose)
    x, y = x0 + scale * (u * cosine - v * sine), y0 + scale * (u * sine + v * cosine)
    return (torch.stack([x, y], 2) + 1) * (size / 2)


def keypoint_map(faces: Sequence[Face], size: int = SIZE) -> Float[Tensor, "batch 3 size size"]:
    """Draws the keypoints of faces as InstantID's ControlNet gets them (arXiv 2401.07519, released
    code): a disc for each, and a limb from each to the nose, on black.

    Args:
        faces: The faces.
        size: Width and height in pixels.
    """
    return draw_keypoints(keypoints(faces, size), size)


def draw_keypoints(
    points: Float[Tensor, "batch 5 2"], size: int = SIZE
) -> Float[Tensor, "batch 3 size size"]:
    """Draws keypoints in pixels, such as those that a network reads, as `keypoint_map` does.

    Args:
        points: The coordinates x and y of `POINTS`, in pixels.
        size: Width and height in pixels.
    """
    line = torch.arange(size) + 0.5
    x, y = line.view(1, 1, -1), line.view(1, -1, 1)
    canvas = torch.zeros(len(points), 3, size, size)
    pixel = size / SIZE
    colours = torch.tensor(POINT_COLOURS).view(-1, 1, 3, 1, 1)
    place = points.unbind(1)
    nose = place[POINTS.index("nose")]
    for point, colour in zip(place, colours, strict=True):
        gap = _segment_gap(x, y, point, nose) - LIMB_WIDTH * pixel / 2
        canvas = _over(canvas, colour * LIMB_BRIGHTNESS, gap)
    for point, colour in zip(place, colours, strict=True):
        px, py = (c.view(-1, 1, 1) for c in point.unbind(1))
        canvas = _over(canvas, colour, torch.hypot(x - px, y - py) - POINT_RADIUS * pixel)
    return canvas


class _Measures:
    """The sizes of features in units of half a picture, each `(batch, 1, 1)`."""

    def __init__(self, faces: Sequence[Face]) -> None:
        table = torch.tensor(
            [
                (*astuple(f.identity), f.x, f.y, f.scale, math.cos(f.angle), math.sin(f.angle))
                for f in faces
            ]
        )
        columns = [column.view(-1, 1, 1) for column in table.unbind(1)]
        identity, self.pose = dict(zip(PARAMETERS, columns, strict=False)), columns[-5:]
        self.face_width = 0.48 + 0.18 * identity["face_width"]
        self.face_height = 0.64 + 0.18 * identity["face_height"]
        self.eye_distance = 0.17 + 0.11 * identity["eye_distance"]
        self.eye_size = 0.08 + 0.06 * identity["eye_size"]
        self.brow_tilt = 0.07 * (2 * identity["brow_tilt"] - 1)
        self.nose_length = 0.04 + 0.20 * identity["nose_length"]
        self.mouth_width = 0.14 + 0.18 * identity["mouth_width"]
        self.mouth_curve = 0.13 * (2 * identity["mouth_curve"] - 1)
        self.hair_end = -0.15 + 0.85 * identity["hair_length"]
        light, dark = (torch.tensor(skin).view(1, 3, 1, 1) for skin in SKINS)
        self.skin = torch.lerp(light, dark, identity["skin_tone"].unsqueeze(1))


def _draw_chunk(faces: Sequence[Face], size: int) -> Float[Tensor, "batch 3 size size"]:
    shape = _Measures(faces)
    line = (torch.arange(size) + 0.5) * (2 / size) - 1
    x0, y0, scale, cosine, sine = shape.pose
    x, y = (line.view(1, 1, -1) - x0) / scale, (line.view(1, -1, 1) - y0) / scale
    u, v = x * cosine + y * sine, y * cosine - x * sine
    pixel = scale * (size / 2)
    ground, hair = (
        torch.tensor([COLOURS[name] for name in names]).view(-1, 3, 1, 1)
        for names in ([f.background for f in faces], [f.hair for f in faces])
    )
    side = u.abs()  # faces are symmetric
    head = _ellipse_gap(u, v, shape.face_width, shape.face_height)
    around = _ellipse_gap(u, v, shape.face_width + HAIR_MARGIN, shape.face_height + HAIR_MARGIN)
    eye = torch.hypot(side - shape.eye_distance, v - EYE_HEIGHT)
    brow = _line_gap(
        side - shape.eye_distance,
        v - BROW_HEIGHT,
        BROW_LENGTH,
        -shape.brow_tilt / BROW_LENGTH,
    )
    nose = torch.hypot(
        u, v - NOSE_HEIGHT - (v - NOSE_HEIGHT).clamp(min=0).minimum(shape.nose_length)
    )
    along = side.minimum(shape.mouth_width)
    bend = shape.mouth_curve / shape.mouth_width.square()
    height = MOUTH_HEIGHT - bend * along.square()
    steepness = (1 + (2 * bend * along).square()).sqrt()
    mouth = torch.hypot(side - along, (v - height) / steepness)
    canvas = ground.expand(-1, -1, size, size)
    half = LINE / 2
    for colour, gap in (
        (hair, around.maximum(v - shape.hair_end)),
        (shape.skin, head),
        (hair, around.maximum(v - FRINGE)),
        (_colour(BROW), brow - half),
        (shape.skin * 0.62, nose - half),
        (_colour(MOUTH), mouth - half),
        (_colour(WHITE), eye - shape.eye_size),
        (_colour(PUPIL), eye - shape.eye_size * 0.55),
    ):
        canvas = _over(canvas, colour, gap * pixel)
    return canvas


def _colour(rgb: tuple[float, float, float]) -> Float[Tensor, "1 3 1 1"]:
    return torch.tensor(rgb).view(1, 3, 1, 1)


def _over(
    canvas: Float[Tensor, "batch 3 size size"],
    colour: Float[Tensor, "rows 3 1 1"],
    gap: Float[Tensor, "batch size size"],
) -> Float[Tensor, "batch 3 size size"]:
    """Paints a colour where a distance in pixels is negative, with one pixel of smoothing."""
    return canvas.lerp(colour, (0.5 - gap).clamp(0, 1).unsqueeze(1))


def _ellipse_gap(u: Tensor, v: Tensor, width: Tensor, height: Tensor) -> Tensor:
    """Returns the distance from an ellipse with half-axes `width` and `height`, to first order."""
    reach = torch.hypot(u / width, v / height)
    slope = torch.hypot(u / width.square(), v / height.square()).clamp(min=1e-6)
    return reach * (reach - 1) / slope


def _line_gap(u: Tensor, v: Tensor, length: float, slope: Tensor) -> Tensor:
    """Returns the distance from a line through the origin that reaches `length` to both sides."""
    along = ((u + v * slope) / (1 + slope.square())).clamp(-length, length)
    return torch.hypot(u - along, v - along * slope)


def _segment_gap(x: Tensor, y: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Returns the distance from the segments between points `(batch, 2)`."""
    (x0, y0), (x1, y1) = ((c.view(-1, 1, 1) for c in p.unbind(1)) for p in (start, end))
    dx, dy = x1 - x0, y1 - y0
    share = ((x - x0) * dx + (y - y0) * dy) / (dx.square() + dy.square()).clamp(min=1e-6)
    share = share.clamp(0, 1)
    return torch.hypot(x - x0 - share * dx, y - y0 - share * dy)
