"""Preprocessors by filters: held to straight-line references, and to what they promise."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from refiners_preprocessors import (
    blur,
    canny,
    colour_palette,
    grey,
    inpaint_mask,
    lineart,
    scribble,
    shuffle,
    soft_edge,
    tile,
)
from refiners_preprocessors.line import thinned

from refiners_core.errors import ConditionError

COLOUR = [blur, tile, colour_palette, shuffle]
GREY = [canny, soft_edge, lineart, scribble, inpaint_mask, grey]
FILTERS = [*COLOUR, *GREY]


def photo(width: int = 96, height: int = 64) -> Image.Image:
    """Returns a bright disc on a gradient of colours."""
    y, x = np.mgrid[:height, :width]
    levels = np.stack([x * 255 // width, y * 255 // height, 128 + 0 * x], axis=2).astype(np.uint8)
    levels[(x - width // 2) ** 2 + (y - height // 2) ** 2 < 400] = 240
    return Image.fromarray(levels)


def step(height: int = 40, width: int = 60, low: int = 40, high: int = 200) -> Image.Image:
    """Returns a picture that is dark on the left and bright on the right."""
    levels = np.full((height, width), low, np.uint8)
    levels[:, width // 2 :] = high
    return Image.fromarray(levels)


def array(image: Image.Image) -> Any:
    return np.asarray(image).astype(int)


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", FILTERS)
def test_a_picture_in_any_form_gives_an_image_of_the_same_size(make: Callable[..., Any]):
    picture = photo()
    made = make(picture)
    assert isinstance(made, Image.Image)
    assert made.size == (96, 64)
    assert made.mode == ("L" if make in GREY else "RGB")
    pixels = torch.from_numpy(np.asarray(picture) / 255).float().permute(2, 0, 1)
    for form in (np.asarray(picture), pixels, pixels[None], [picture]):
        assert (array(make(form)) == array(made)).all()
    assert make(picture, size=(48, 40)).size == (48, 40)


@pytest.mark.parametrize("make", FILTERS)
@pytest.mark.parametrize("level", [0, 255])
def test_an_even_picture_has_no_edges_and_keeps_its_colour(make: Callable[..., Any], level: int):
    made = array(make(Image.new("RGB", (70, 70), (level, level, level))))
    assert (made == (0 if make in GREY and make not in (inpaint_mask, grey) else level)).all()


@pytest.mark.parametrize("make", [canny, soft_edge, lineart, scribble])
def test_noise_stays_dark(make: Callable[..., Any]):
    noise = np.random.default_rng(0).normal(128, 2, (64, 64, 3)).round().astype(np.uint8)
    assert array(make(noise)).mean() < 12


@pytest.mark.parametrize("make", FILTERS)
def test_several_pictures_or_none_are_refused(make: Callable[..., Any]):
    with pytest.raises(ConditionError, match="one picture") as error:
        make([photo(), photo()])
    assert "for picture in pictures" in error.value.hint
    with pytest.raises(ConditionError, match="is not an image"):
        make("photo.png")


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (canny, {"low": -1.0}, "low is a number in 0...2040, not -1.0"),
        (canny, {"high": float("nan")}, "high is a number"),
        (canny, {"low": 300.0, "high": 200.0}, "low is at most high; they are 300 and 200"),
        (scribble, {"threshold": 1.1}, "threshold is a number in 0...1"),
        (scribble, {"width": 0}, "width is a whole number in 1...50, not 0"),
        (lineart, {"sigma": 0.0}, "sigma is a number in 0.3...20"),
        (blur, {"sigma": 1e9}, "sigma is a number"),
        (tile, {"factor": True}, "factor is a whole number"),
        (colour_palette, {"cell": 0}, "cell is a whole number"),
        (shuffle, {"seed": -1}, "seed is a whole number"),
        (shuffle, {"grain": 0}, "grain is a whole number"),
        (inpaint_mask, {"threshold": -0.1}, "threshold is a number"),
        (inpaint_mask, {"grow": -1}, "grow is a whole number"),
    ],
)
def test_a_number_out_of_range_is_refused(
    make: Callable[..., Any], options: dict[str, Any], message: str
):
    with pytest.raises(ConditionError, match=message) as error:
        make(photo(), **options)
    typed = eval(f"dict({error.value.hint.removeprefix('Try ').removesuffix('.')})")
    make(photo(), **{**options, **typed})  # as the hint says


# --- each of them ---------------------------------------------------------------------------------


def test_canny_is_that_of_opencv_on_colours():
    picture = photo()
    assert (array(canny(picture)) == cv2.Canny(np.asarray(picture), 100, 200)).all()
    assert (array(canny(picture, low=20, high=60)) == cv2.Canny(np.asarray(picture), 20, 60)).all()
    assert array(canny(picture)).any()


def test_soft_edges_are_white_on_the_edge_and_fade_beside_it():
    made = array(soft_edge(step()))[20]
    assert made[29] == made[30] == 255
    assert (np.diff(made[30:45]) <= 0).all()
    assert (made[:10] == 0).all()
    faint = array(soft_edge(step(low=100, high=110)))[20]
    assert 0 < faint[30] < 200


def test_lines_run_on_the_dark_side_in_any_colour():
    made = array(lineart(step()))[20]
    assert made[27:30].max() == made.max() > 230
    assert (made[31:] == 0).all()
    red, teal = (200, 60, 60), (40, 130, 132)  # of one brightness
    picture = Image.new("RGB", (60, 40), red)
    picture.paste(teal, (30, 0, 60, 40))
    assert array(lineart(picture)).max() > 230


def test_a_scribble_has_one_width():
    for width in (1, 5, 9):
        rows = (array(scribble(step(), width=width)) > 0)[10:30].sum(axis=1)
        assert set(rows) == {width}
    assert not array(scribble(step(low=100, high=104), threshold=0.5)).any()


def test_thinning_keeps_the_middle_and_what_is_connected():
    shape = np.zeros((21, 31), bool)
    shape[8:13, 3:28] = True
    shape[2:19, 14:17] = True
    lines = thinned(shape)
    assert lines.any()
    assert not (lines & ~shape).any()
    assert cv2.connectedComponents(lines.astype(np.uint8), connectivity=8)[0] == 2
    assert lines[10, 8:12].all()
    assert not (lines[:-1, :-1] & lines[1:, :-1] & lines[:-1, 1:] & lines[1:, 1:]).any()
    assert (thinned(lines) == lines).all()
    assert shape[8:13, 3:28].all()  # the input is left alone


def test_blur_is_a_gaussian():
    levels = np.zeros((61, 61), np.uint8)
    levels[30, 30] = 255
    x = np.exp(-((np.arange(61) - 30) ** 2) / (2 * 1.5**2))
    wanted = 255 * np.outer(x, x) / x.sum() ** 2
    assert np.abs(array(blur(levels, sigma=1.5))[:, :, 0] - wanted).max() <= 1


def test_a_tile_keeps_means_and_loses_detail():
    y, x = np.mgrid[:64, :64]
    checks = ((x + y) % 2 * 255).astype(np.uint8)
    assert set(np.unique(array(tile(checks, factor=8)))) <= {127, 128}
    levels = np.asarray(photo(64, 64)).astype(float)
    means = levels.reshape(8, 8, 8, 8, 3).mean((1, 3))
    made = array(tile(levels.astype(np.uint8), factor=8)).reshape(8, 8, 8, 8, 3).mean((1, 3))
    assert np.abs(means - made).mean() < 3
    assert (array(tile(photo(), factor=1)) == array(photo())).all()


def test_a_palette_has_squares_of_the_colour_at_their_centre():
    picture = photo(192, 128)
    made = array(colour_palette(picture))
    cells = made.reshape(2, 64, 3, 64, 3)
    assert (cells == cells[:, :1, :, :1]).all()
    weights = np.array([-0.09375, 0.59375, 0.59375, -0.09375])  # Keys' cubic, a = -0.75, at 1/2
    levels = np.asarray(picture).astype(float)
    for row in range(2):
        for column in range(3):
            y, x = 64 * row + 30, 64 * column + 30
            wanted = np.einsum("i,j,ijc->c", weights, weights, levels[y : y + 4, x : x + 4])
            assert np.abs(cells[row, 0, column, 0] - wanted).max() <= 1
    assert len(np.unique(array(colour_palette(photo(40, 40))).reshape(-1, 3), axis=0)) == 1


def test_a_shuffle_moves_pixels_by_a_smooth_field_of_its_seed():
    y, x = np.mgrid[:64, :96]
    ramp = np.stack([x * 2, y * 2, 0 * x], axis=2).astype(np.uint8)
    made = array(shuffle(ramp, seed=3))
    across, down = made[:, :, 0] / 2, made[:, :, 1] / 2
    assert (across.min(), across.max()) == (0, 95)  # the field reaches every side
    assert (down.min(), down.max()) == (0, 63)
    assert np.abs(np.diff(across, axis=1)).max() < 12  # neighbours stay neighbours
    assert np.abs(across - x).mean() > 5
    assert (array(shuffle(ramp, seed=3)) == made).all()
    assert (array(shuffle(ramp, seed=4)) != made).any()
    fine = array(shuffle(ramp, seed=3, grain=8))[:, :, 0] / 2
    assert np.abs(np.diff(fine, axis=1)).mean() > 2 * np.abs(np.diff(across, axis=1)).mean()


def test_a_mask_is_where_a_picture_is_transparent_or_bright():
    cut = photo().convert("RGBA")
    cut.paste((0, 0, 0, 0), (10, 10, 20, 20))
    wanted = np.zeros((64, 96), bool)
    wanted[10:20, 10:20] = True
    for form in (cut, np.asarray(cut), np.asarray(cut) / 255):
        assert ((array(inpaint_mask(form)) == 255) == wanted).all()
    mask = Image.fromarray(wanted)
    assert ((array(inpaint_mask(mask)) == 255) == wanted).all()
    assert (array(inpaint_mask(inpaint_mask(cut))) == array(inpaint_mask(cut))).all()
    grown = array(inpaint_mask(mask, grow=3)) == 255
    assert grown[15, 7]
    assert not grown[15, 6]
    assert set(np.unique(array(inpaint_mask(photo())))) == {0, 255}


def test_grey_is_the_luma_of_the_colours():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert array(grey(colours)).tolist() == [[76, 150, 29]]
