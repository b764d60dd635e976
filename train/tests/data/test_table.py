"""Pictures of datasets and of WebDataset shards."""

import io
import json
import sys
import tarfile

import datasets
import pytest
import torch
from refiners_train.data.data_error import DataError
from refiners_train.data.picture_source import PictureSource
from refiners_train.data.picture_spec import open_pictures
from refiners_train.data.record import check_pictures
from refiners_train.data.shard import Shards
from refiners_train.data.table import Table

from .pictures import gradient


def png(width: int, height: int, blue: int) -> bytes:
    content = io.BytesIO()
    gradient(width, height, blue).save(content, "png")
    return content.getvalue()


@pytest.fixture
def table(tmp_path):
    rows = {
        "image": [{"bytes": png(12, 8, number), "path": None} for number in range(3)],
        "words": [f"picture {number}" for number in range(3)],
        "edges": [{"bytes": png(12, 8, number), "path": None} for number in range(3)],
    }
    features = datasets.Features(
        image=datasets.Image(), words=datasets.Value("string"), edges=datasets.Image()
    )
    datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path / "rows")
    return tmp_path / "rows"


@pytest.fixture
def shards(tmp_path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard:03}.tar", "w") as tar:
            for number in range(2):
                name = f"s{shard}{number}"
                for ending, content in {
                    "png": png(12, 8, number),
                    "edges.png": png(12, 8, 2 * number),
                    "json": json.dumps({"words": f"picture {name}"}).encode(),
                }.items():
                    member = tarfile.TarInfo(f"{name}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return tmp_path


def test_the_rows_of_a_dataset_are_examples(table):
    options = {"text": "words", "conditions": {"": "edges"}}
    source = open_pictures(f"hf:{table}", options, size=(8, 8), seed=0)
    example = source.example(1, 0)
    assert example.text == "picture 1"
    assert torch.equal(example.picture, example.conditions[""])
    assert example.original == (8, 12)


def test_a_missing_column_is_refused_with_those_that_exist(table):
    message = "no column 'text' for captions; it has image, words, edges"
    with pytest.raises(DataError, match=message):
        Table(str(table))


def test_a_dataset_of_the_hub_needs_its_commit():
    with pytest.raises(DataError, match="hf:someone/pictures@COMMIT"):
        Table("someone/pictures")


def test_damaged_rows_are_named(tmp_path):
    rows = {"image": [{"bytes": b"damaged", "path": None}], "text": ["x"]}
    features = datasets.Features(image=datasets.Image(), text=datasets.Value("string"))
    datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path)
    with pytest.raises(DataError, match=r"row 0 of .*cannot identify"):
        check_pictures(Table(str(tmp_path)))


def test_the_samples_of_shards_are_examples_in_any_order(shards):
    options = {"text": "json:words", "conditions": {"": "edges.png"}}
    source = open_pictures(f"wds:{shards}/{{000..001}}.tar", options, size=(8, 8), seed=0)
    assert [source.example(index, 0).text for index in (3, 0)] == ["picture s11", "picture s00"]
    example = source.example(3, 0)
    assert example.picture[2].max() * 255 == pytest.approx(1)
    assert example.conditions[""][2].max() * 255 == pytest.approx(2)


def test_all_missing_members_and_shards_are_named(shards):
    with pytest.raises(DataError) as refusal:
        Shards(f"{shards}/{{000..002}}.tar", caption="x", mask="mask.png")
    assert "002.tar: [Errno 2] No such file" in str(refusal.value)
    assert "000.tar/s01: no mask.png" in str(refusal.value)


def test_the_fingerprint_of_shards_follows_their_names(shards):
    paths = f"{shards}/{{000..001}}.tar"
    first = Shards(paths, caption="x").fingerprint
    assert Shards(paths, caption="x").fingerprint == first
    assert Shards(f"{shards}/000.tar", caption="x").fingerprint != first


@pytest.mark.parametrize("library", ["datasets", "webdataset"])
def test_a_missing_library_is_named_with_its_extra(monkeypatch, table, library):
    for module in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DataError, match=rf"refiners-train\[{library}\]"):
        Table(str(table)) if library == "datasets" else Shards("x.tar")


def test_workers_read_what_this_process_reads(shards):
    source = PictureSource(Shards(f"{shards}/{{000..001}}.tar", caption="x"), (8, 8))
    loader = torch.utils.data.DataLoader(
        [(source, index) for index in range(4)],
        collate_fn=lambda pairs: [s.example(i, 5).picture for s, i in pairs],
        num_workers=2,
    )
    for index, [picture] in enumerate(loader):
        assert torch.equal(picture, source.example(index, 5).picture)
