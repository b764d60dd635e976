from random import Random

import torch
from refiners_playground.edge import edge_agreement, edges
from refiners_playground.random_scene import placed_scene
from refiners_playground.scene import SHAPES, Item, Scene, draw


def test_a_flat_picture_has_no_edges():
    assert edges(torch.full((2, 3, 64, 64), 0.4)).sum() == 0


def test_a_step_between_two_pixels_is_one_line_of_one_pixel():
    pixels = torch.zeros(1, 3, 16, 16)
    pixels[:, 0, :, 8:] = 1
    for picture in (pixels, pixels.transpose(2, 3)):
        lines = edges(picture)
        assert lines.shape == (1, 1, 16, 16)
        assert lines.sum() == 16
    assert edges(pixels)[0, 0, :, 7:9].sum() == 16


def test_edges_follow_the_outline_of_a_square():
    outline = edges(draw([Scene((Item("square", "black", radius=0.5),), "white")]))[0, 0]
    line = torch.nonzero(outline).float() + 0.5
    far = ((line - 32).abs().amax(1) - 0.8 * 0.5 * 32).abs()
    assert far.max() <= 1.5
    assert 80 <= len(line) <= 108


def test_lines_are_thin():
    random = Random(0)
    lines = edges(draw([placed_scene(random) for _ in range(64)]))
    blocks = torch.nn.functional.avg_pool2d(lines, 2, stride=1) == 1
    assert blocks.float().sum() / lines.sum() < 0.01


def test_every_shape_has_edges_on_every_background():
    for background in ("black", "white", "orange"):
        lines = edges(draw([Scene((Item(shape, "red"),), background) for shape in SHAPES]))
        assert lines.sum((1, 2, 3)).min() > 60


def test_agreement_is_one_with_itself_and_tolerates_one_pixel():
    lines = edges(draw([Scene((Item("star", "red"),), "white")]))
    assert edge_agreement(lines, lines) == 1
    assert edge_agreement(lines.roll(1, 3), lines) == 1
    assert edge_agreement(lines.roll(8, 3), lines) < 0.6
    assert edge_agreement(torch.zeros_like(lines), lines) == 0
