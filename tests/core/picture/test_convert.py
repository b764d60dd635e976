"""Images of every mode, size and form as tensors."""

import numpy as np
import pytest
import torch
from PIL import Image

from refiners_core.errors import ConditionError, GenerationError
from refiners_core.picture import shrunk, to_mask, to_pixels

RAMP = np.linspace(0, 1, 32, dtype=np.float32)


def row_of(picture):
    return to_pixels(picture)[0, :, 0].T.numpy()


@pytest.mark.parametrize(
    ("mode", "levels"),
    [
        ("I;16", (RAMP * 65535).astype(np.uint16)),
        ("I", (RAMP * 65535).astype(np.int32)),
        ("F", RAMP),
        ("L", (RAMP * 255).astype(np.uint8)),
    ],
)
def test_the_full_range_of_a_mode_is_scaled(mode, levels):
    picture = Image.fromarray(np.tile(levels, (4, 1)))
    assert picture.mode == mode
    assert np.abs(row_of(picture) - RAMP[:, None]).max() < 0.005


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_other_modes_match_their_conversion_to_rgb(mode):
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    seen = np.asarray(red.convert(mode).convert("RGB"), np.float32)[0] / 255
    assert np.abs(row_of(red.convert(mode)) - seen).max() < 1e-6


def clear(colour, mode):
    picture = Image.new("RGBA", (4, 4), (*colour, 0))
    if mode == "P":  # a palette with a transparent colour
        picture = Image.new("P", (4, 4), 0)
        picture.putpalette([*colour, 255, 255, 255])
        picture.info["transparency"] = 0
        return picture
    return picture.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGBa", "PA"])
def test_transparent_parts_are_white_whatever_their_colour(mode):
    black, red = (to_pixels(clear(colour, mode)) for colour in ((0, 0, 0), (250, 0, 0)))
    assert black.equal(red)
    assert (black > 0.999).all()  # the background
    assert (to_mask(clear((250, 250, 250), mode)) == 0).all()  # transparent parts are not marked


def test_half_transparent_colours_are_mixed_with_the_background():
    picture = Image.new("RGBA", (2, 2), (255, 0, 0, 51))
    assert to_pixels(picture)[0, :, 0, 0].tolist() == pytest.approx([1, 0.8, 0.8])


def test_a_picture_is_upright():
    picture = Image.new("RGB", (64, 48), "blue")
    picture.paste("red", (0, 0, 64, 12))
    picture.getexif()[0x0112] = 6  # turned by 90 degrees
    pixels = to_pixels(picture)
    assert pixels.shape == (1, 3, 64, 48)
    assert (pixels[0, 0, :, -12:] == 1).all()
    assert to_mask(picture).shape == (1, 1, 64, 48)


@pytest.mark.parametrize(
    "array",
    [
        (RAMP * 255).astype(np.uint8)[None],
        (RAMP * 65535).astype(np.uint16)[None, :, None],
        np.repeat(RAMP[None, :, None], 3, 2).astype(np.float64),
        np.concatenate([np.repeat(RAMP[None, :, None], 3, 2), np.ones((1, 32, 1))], 2),
    ],
)
def test_arrays_are_pictures(array):
    assert np.abs(row_of(array) - RAMP[:, None]).max() < 0.005
    assert to_pixels([array, array]).shape == (2, 3, 1, 32)


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        (np.zeros((3, 8, 8), np.float32), r"an array \[3, 8, 8\] .* is not \(height", "transpose"),
        (np.zeros((8, 8, 3), np.int64), "numbers of int64 have no known range", "astype"),
        (np.full((8, 8, 3), 7.0), "values in 0...1", "Divide bytes by 255"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "of torch.uint8 is not an image", "tensor / 255"),
        (Image.fromarray(RAMP[None] * 255), "an image of mode F", "Divide bytes by 255"),
        (Image.new("RGB", (0, 4)), "0 x 4 is not an image: it has no pixels", "at least 1 x 1"),
        (np.zeros((0, 8, 3), np.uint8), "it has no pixels", "at least 1 x 1"),
        (torch.zeros(0, 3, 8, 8), "it has no pixels", "at least 1 x 1"),
        (torch.zeros(2, 8, 8), "it has 2 channels, and needs 3", "(count, 1, height, width)"),
        (np.full((8, 8, 3), np.nan), "values that are not finite", "numpy.nan_to_num"),
        (torch.full((3, 8, 8), torch.inf), "values that are not finite", "torch.nan_to_num"),
        (torch.ones(3, 8, 8) > 0, "of torch.bool is not an image", "tensor.float()"),
        ([], "an empty list is not an image", "Pass a PIL image"),
        ([[], ()], "an empty list is not an image", "Pass a PIL image"),
        ("picture.png", "a value of type str is not an image", "Pass a PIL image"),
    ],
)
def test_a_value_that_is_not_an_image_is_refused_with_a_hint(value, message, hint):
    with pytest.raises(ConditionError, match=message) as error:
        to_pixels(value)
    assert hint in error.value.hint


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "cut.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(ConditionError, match="it cannot be read"):
        to_pixels(Image.open(path))


def test_the_current_frame_of_an_animation_is_taken(tmp_path):
    path = tmp_path / "film.gif"
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    film = Image.open(path)
    assert to_pixels(film)[0, :, 0, 0].tolist() == [1, 0, 0]
    film.seek(1)
    assert to_pixels(film)[0, :, 0, 0].tolist() == [0, 1, 0]


def test_pictures_of_several_sizes_are_resized_each_alone():
    a, b = (Image.effect_noise(size, 60) for size in ((32, 32), (48, 40)))
    both = to_pixels([a, b], (16, 16))
    assert both.equal(torch.cat([to_pixels(a, (16, 16)), to_pixels(b, (16, 16))]))
    with pytest.raises(ConditionError, match="several sizes: 32 x 32, 48 x 40"):
        to_pixels([a, b])


def test_images_of_several_sizes_need_a_size(model):
    pictures = [Image.effect_noise(size, 60) for size in ((32, 32), (48, 40))]
    arguments = {
        "image": pictures,
        "steps": 2,
        "seed": [1, 2],
        "output": "latents",
        "progress": False,
    }
    with pytest.raises(GenerationError, match="the images are of several sizes: 32 x 32, 48 x 40"):
        model.generate(["a", "b"], **arguments)
    masks = [Image.new("L", picture.size, 255) for picture in pictures]
    both = model.generate(["a", "b"], size=32, mask=masks, **arguments)
    alone = model.generate(
        "b", size=32, mask=masks[1], **arguments | {"image": pictures[1], "seed": [2]}
    )
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


def test_a_pixel_of_a_smaller_mask_follows_most_of_its_area():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 0, :] = 1  # nearest neighbour would spread this line over everything
    mask[..., 4:, 5:] = 1
    assert shrunk(mask, (2, 2)).flatten().tolist() == [0, 0, 0, 1]
    assert to_mask(mask, (2, 2)).flatten().tolist() == [0.25, 0.25, 0, 0.75]
    assert shrunk(mask, (16, 16)).unique().tolist() == [0, 1]


def test_colours_of_a_mask_count_by_their_brightness():
    levels = [float(to_mask(Image.new("RGB", (2, 2), it)).mean()) for it in ("lime", "blue")]
    assert levels == pytest.approx([0.587, 0.114])
    assert to_mask(torch.tensor([[True, False]])).flatten().tolist() == [1, 0]
