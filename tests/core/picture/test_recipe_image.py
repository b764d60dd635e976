"""The recipe of an image is in the files that it is saved to, as users save them."""

import copy
import io
import pickle

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from refiners_core.errors import Notice
from refiners_core.recipe_image import ASCII, RECIPE, RecipeImage

TEXT = '{"recipe": 1, "prompt": "caf\\u00e9"}'


@pytest.fixture
def image():
    return RecipeImage.of(Image.new("RGB", (8, 6), "red"), TEXT)


def comment_of(file):
    exif = Image.open(file).getexif()
    return exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"")


@pytest.mark.parametrize("name", ["a.png", "a.PNG"])
def test_a_png_has_the_recipe_as_text(image, tmp_path, name):
    image.save(tmp_path / name)
    assert Image.open(tmp_path / name).info == {RECIPE: TEXT}


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.webp"])
def test_other_formats_have_the_recipe_as_a_comment(image, tmp_path, name):
    image.save(str(tmp_path / name), quality=50)
    assert comment_of(tmp_path / name) == ASCII + TEXT.encode()
    assert Image.open(tmp_path / name).size == (8, 6)


def test_an_open_file_takes_a_format_or_has_a_name(image, tmp_path):
    file = io.BytesIO()
    image.save(file, "png")
    assert Image.open(file).info[RECIPE] == TEXT
    with (tmp_path / "a.png").open("wb") as named:
        image.save(named)
    assert Image.open(tmp_path / "a.png").info[RECIPE] == TEXT


def test_formats_without_comments_are_written_as_before(image, tmp_path):
    for name in ("a.bmp", "a.gif"):
        image.save(tmp_path / name)
        assert RECIPE not in Image.open(tmp_path / name).info


def test_the_caller_decides(image, tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "me")
    image.save(tmp_path / "a.png", pnginfo=info)
    assert Image.open(tmp_path / "a.png").info == {"Author": "me"}
    image.save(tmp_path / "a.jpg", exif=b"")
    assert comment_of(tmp_path / "a.jpg") == b""
    del image.info[RECIPE]
    image.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").info == {}


def test_a_recipe_that_is_too_long_for_exif_is_left_out_with_a_notice(image, tmp_path):
    image.info[RECIPE] = TEXT * 3000
    with pytest.warns(Notice, match="too many for JPEG") as caught:
        image.save(tmp_path / "a.jpg")
    assert caught[0].filename == __file__
    assert comment_of(tmp_path / "a.jpg") == b""
    image.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").info[RECIPE] == TEXT * 3000


def test_copies_of_the_object_keep_the_recipe_and_derived_images_do_not(image, tmp_path):
    for same in (pickle.loads(pickle.dumps(image)), copy.deepcopy(image)):
        same.save(tmp_path / "a.png")
        assert Image.open(tmp_path / "a.png").info[RECIPE] == TEXT
    image.resize((4, 3)).save(tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").info == {}
