from pathlib import Path

from PIL import Image
from refiners_train.evaluate.sheet import SIDE, contact_sheet


def test_each_prompt_has_a_row_with_the_picture_without_and_with(tmp_path: Path):
    for i in range(2):
        Image.new("RGB", (64, 64), "red").save(tmp_path / f"without-{i}.png")
        Image.new("RGB", (64, 64), "blue").save(tmp_path / f"with-{i}.png")
    sheet = contact_sheet({"lora-ink": (tmp_path, ("a heart", ""))})
    assert sheet is not None
    counts = {colour: count for count, colour in sheet.getcolors(1 << 24) or []}
    assert counts[255, 0, 0] == counts[0, 0, 255] == 2 * SIDE**2
    left = {x for x in range(sheet.width) if sheet.getpixel((x, sheet.height - 50)) == (255, 0, 0)}
    right = {x for x in range(sheet.width) if sheet.getpixel((x, sheet.height - 50)) == (0, 0, 255)}
    assert max(left) < min(right)


def test_without_pictures_there_is_no_sheet(tmp_path: Path):
    assert contact_sheet({"writer": (tmp_path, ())}) is None
