"""Pictures, reports and facts of classes that wheels carry are shown; anything else is left out."""

import json
import zipfile
from pathlib import Path

from refiners.page import read_extras

from .conftest import PIXEL, REPORT, Page, adapter_page, built, release


def wheel(folder: Path, **files: bytes | str) -> Path:
    """Writes a wheel with these files, whose names have / for __ and . for _DOT_."""
    path = folder / "refiners_edges-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_DOT_", "."), content)
    return path


def test_a_wheel_adds_pictures_a_report_and_whether_masks_work(tmp_path: Path):
    source = (
        "from refiners_core.models.control.side_network import Side\n"
        "class Parent:\n    takes_mask = True\nclass Made(Parent):\n    pass\n"
    )
    path = wheel(
        tmp_path,
        m__examples__heart_DOT_png=PIXEL,
        m__examples__heart_DOT_py='"""A heart, traced."""\nx = "edges"\n',
        m__examples__other_DOT_png=PIXEL + b"x",
        m__examples__script_DOT_svg="<svg onload='alert(1)'/>",
        m__examples__fake_DOT_png="<script>alert(1)</script>",
        m__examples__huge_DOT_png=PIXEL + b"\0" * 300_000,
        m__adapter_DOT_py=source,
        m__conformance_DOT_json=json.dumps(REPORT),
    )
    site = built(tmp_path, release(), extras=read_extras([path]))
    page = adapter_page(site)
    images = [a for tag, a in page.elements if tag == "img" and "pictures" in a["src"]]
    assert [image["alt"] for image in images] == ["A heart, traced."]
    assert {image["width"] for image in images} == {"1"}
    written = [p for p in site.rglob("*") if "pictures" in p.parts and p.is_file()]
    assert [p.read_bytes() for p in written] == [PIXEL]
    assert "1 passed, 1 failed" in page.text
    assert "not known" not in Page(site / "matrix/matrix.html").text.partition("The columns")[0]


def test_a_folder_of_pictures_does_as_well(tmp_path: Path):
    home = tmp_path / "pictures" / "Refiners_Edges"
    home.mkdir(parents=True)
    (home / "red-heart.png").write_bytes(PIXEL)
    (home / "huge.png").write_bytes(PIXEL + b"\0" * 300_000)
    (home / "fake.png").write_text("<script>alert(1)</script>")
    (home / "script.svg").write_text("<svg onload='alert(1)'/>")
    site = built(tmp_path, release(), extras=read_extras(folder=tmp_path / "pictures"))
    page = adapter_page(site)
    images = [a["alt"] for tag, a in page.elements if tag == "img" and "pictures" in a["src"]]
    assert images == ["red heart"]
    assert "Pictures" not in adapter_page(built(tmp_path / "2", release("fine")), "fine").text
