"""Folders of pictures: captions, tables, conditions, masks, damaged files."""

import json

import pytest
import torch
from PIL import Image
from refiners_train.data.data_error import DataError
from refiners_train.data.folder import Folder
from refiners_train.data.picture_source import PictureSource
from refiners_train.data.picture_spec import open_pictures
from refiners_train.data.record import check_pictures

from .pictures import gradient, write_pictures


def texts(folder: Folder) -> list[str]:
    return [folder.record(index).text for index in range(len(folder))]


def test_captions_are_read_from_the_files_beside_the_pictures(tmp_path):
    write_pictures(tmp_path, b=(8, 8), a=(8, 8))
    (tmp_path / "a.txt").rename(tmp_path / "a.caption")
    assert texts(Folder(tmp_path)) == ["picture a", "picture b"]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_captions_are_read_from_a_table(tmp_path, form):
    for name in ("x", "in/y"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        gradient(8, 8).save(tmp_path / f"{name}.png")
    rows = [("in/y.png", "why"), ("x.png", "ex, of course")]
    if form == "jsonl":
        lines = [json.dumps({"file_name": file, "text": text}) for file, text in rows]
    else:
        lines = ["file_name,text", *(f'{file},"{text}"' for file, text in rows)]
    (tmp_path / f"metadata.{form}").write_text("\n".join(lines))
    assert texts(Folder(tmp_path)) == ["why", "ex, of course"]


def test_folders_of_kohyas_scripts_repeat_their_pictures(tmp_path):
    write_pictures(tmp_path / "3_a dog", a=(8, 8), b=(8, 8))
    (tmp_path / "3_a dog/b.txt").unlink()
    assert texts(Folder(tmp_path)) == ["picture a"] * 3 + ["a dog"] * 3


def test_all_pictures_without_a_caption_are_named(tmp_path):
    write_pictures(tmp_path, a=(8, 8), b=(8, 8), c=(8, 8))
    (tmp_path / "a.txt").unlink()
    (tmp_path / "c.txt").unlink()
    with pytest.raises(DataError) as refusal:
        Folder(tmp_path)
    assert "a.png: no caption" in str(refusal.value)
    assert "c.png: no caption" in str(refusal.value)
    assert texts(Folder(tmp_path, caption="a thing")) == ["a thing", "picture b", "a thing"]


def test_conditions_and_masks_share_the_crop_and_the_flip(tmp_path):
    write_pictures(tmp_path, a=(40, 24))
    write_pictures(tmp_path / "edges", a=(40, 24))
    Image.new("L", (20, 12), 255).save(tmp_path / "a-mask.png")
    records = Folder(tmp_path, conditions={"": "edges"}, mask="-mask")
    source = PictureSource(records, (16, 16))
    for epoch in range(4):
        example = source.example(0, epoch)
        assert torch.equal(example.conditions[""][:2], example.picture[:2])
        assert torch.equal(example.mask, torch.ones(1, 16, 16))
        assert example.original == (24, 40)


def test_conditions_may_be_columns_and_the_picture_itself(tmp_path):
    write_pictures(tmp_path, a=(8, 8), hint=(8, 8))
    row = {"file_name": "a.png", "text": "t", "look": "hint.png", "pose": [1, 2.5]}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    columns = {"edges": "look", "pose": "pose", "style": "picture"}
    example = PictureSource(Folder(tmp_path, conditions=columns), (8, 8)).example(0, 0)
    assert example.conditions["pose"].tolist() == [1, 2.5]
    assert torch.equal(example.conditions["style"], example.picture)
    assert not torch.equal(example.conditions["edges"], example.picture)


def test_the_mask_may_be_the_opacity_of_the_picture(tmp_path):
    picture = gradient(8, 8).convert("RGBA")
    picture.putalpha(Image.new("L", (8, 8), 51))
    picture.save(tmp_path / "a.png")
    source = PictureSource(Folder(tmp_path, caption="a", mask="alpha"), (8, 8))
    assert source.example(0, 0).mask.unique().tolist() == pytest.approx([0.2])


def test_a_missing_condition_is_named(tmp_path):
    write_pictures(tmp_path, a=(8, 8), b=(8, 8))
    write_pictures(tmp_path / "edges", a=(8, 8))
    with pytest.raises(DataError, match=r"b\.png: edges/b\.png does not exist"):
        Folder(tmp_path, conditions={"": "edges"})


def test_all_damaged_pictures_are_named_before_the_training(tmp_path):
    write_pictures(tmp_path, a=(64, 64), b=(64, 64), c=(64, 64))
    (tmp_path / "a.png").write_bytes(b"not a picture")
    content = (tmp_path / "c.png").read_bytes()
    (tmp_path / "c.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError) as refusal:
        check_pictures(Folder(tmp_path))
    assert "a.png: cannot identify" in str(refusal.value)
    assert "c.png: " in str(refusal.value)
    assert "b.png" not in str(refusal.value)


def test_a_turned_picture_is_trained_upright(tmp_path):
    picture = gradient(20, 10)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    source = PictureSource(Folder(tmp_path, caption="a"), (20, 10))
    assert source.frame(0, 0).original == source.example(0, 0).original == (20, 10)


def test_the_fingerprint_follows_contents_and_captions_but_not_the_place(tmp_path):
    first = Folder(write_pictures(tmp_path / "x", a=(8, 8))).fingerprint
    assert Folder(write_pictures(tmp_path / "y", a=(8, 8))).fingerprint == first
    gradient(8, 8, 9).save(tmp_path / "x/a.png")
    assert Folder(tmp_path / "x").fingerprint != first
    (tmp_path / "y/a.txt").write_text("other")
    assert Folder(tmp_path / "y").fingerprint != first


def test_a_configuration_opens_buckets_and_prior_pictures(tmp_path):
    write_pictures(tmp_path / "dog", a=(96, 64), b=(64, 64))
    write_pictures(tmp_path / "dogs", c=(90, 60), d=(30, 30))
    options = {
        "size": 64,
        "crop": "random",
        "flip": 0.5,
        "buckets": {"step": 16},
        "prior": {"source": f"folder:{tmp_path / 'dogs'}"},
    }
    source = open_pictures(f"folder:{tmp_path / 'dog'}", options, size=(8, 8), seed=0)
    sizes = [tuple(source.example(index, 0).picture.shape[1:]) for index in range(4)]
    assert sizes == [(48, 80), (64, 64), (48, 80), (64, 64)]
    assert [source.example(index, 0).is_prior for index in range(4)] == [False, False, True, True]
    assert source.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": 1}, "no option colour; it has caption, column"),
        ({"flip": 2}, r"<= 1.0 - at `\$.flip`"),
        ({"buckets": {"steps": 3}}, "unknown field `steps`"),
        ({"prior": {"caption": "a dog"}}, "need a source"),
    ],
)
def test_a_wrong_option_is_refused_in_words(tmp_path, options, message):
    write_pictures(tmp_path, a=(8, 8))
    with pytest.raises(DataError, match=message):
        open_pictures(f"folder:{tmp_path}", options, size=(8, 8), seed=0)
