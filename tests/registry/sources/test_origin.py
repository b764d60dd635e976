"""The origin of what was loaded: names, versions and hashes, never a folder of the machine."""

import hashlib
from pathlib import Path
from typing import Any, cast

import pytest
import refiners
from refiners.hub.client import Hub
from refiners.manifest.schema import WeightsFile
from refiners.sources.origin import LocalModel, NamedModel, StampedFile, address_of, hashes
from refiners.sources.repository import find_repository
from refiners.testing import LoopbackHub, Repository

from ..conftest import DATA, EDGES_TOML, FILE, Site, fetch, pin

MODEL = cast(Any, None)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))


def test_an_adapter_has_its_version_the_files_of_its_variant_and_its_options(site: Site):
    site.add_toy()
    files = (
        '[adapter.edges.weights.a]\nsource = "pkg:refiners_edges/a.safetensors"\nsha256 = "{}"\n'
    )
    manifest = EDGES_TOML + 'weights = "a"\n' + files.format(sha256(DATA))
    site.add_edges(manifest)
    (site.folder / "refiners_edges/a.safetensors").write_bytes(DATA)
    adapter = refiners.load_adapter("edges", strength=0.5)
    assert adapter.origin(adapter).files == {}  # not bound to a variant yet
    adapter.inject(refiners.load_model("toy"))
    origin = adapter.origin(adapter)
    assert (origin.id, origin.version) == ("refiners-edges:edges", "1.2")
    assert origin.files == {"weights": sha256(DATA)}
    assert origin.options == {"strength": 0.5}


def test_a_model_by_name_has_its_id(site: Site):
    site.add_toy()
    model = refiners.load_model("toy")
    assert model.origin(model).id == "refiners-toy:toy"


def test_a_file_without_a_pin_has_the_hash_of_its_first_fetch(repo: Repository):
    wanted = pin(repo, sha256="unknown")
    assert hashes({"a": wanted}) == {"a": ""}
    fetch(wanted)
    assert hashes({"a": wanted}) == {"a": repo.sha256(FILE)}


@pytest.mark.parametrize("path", ["", "deep/"])
def test_a_repository_has_its_commit_and_folder(hub: LoopbackHub, path):
    parts = ("unet", "vae", "text_encoder")
    names = [f"{part}/model.safetensors" for part in parts]
    texts = ["model_index.json", "scheduler/a.json", "tokenizer/merges.txt"]
    content = {f"{path}{name}": DATA for name in names} | {f"{path}{t}": b"{}" for t in texts}
    repo = hub.publish("org/sd", content)
    address = f"hf:org/sd@main/{path}".rstrip("/") if path else "hf:org/sd"
    model = find_repository(address, Hub.from_environment())
    origin = NamedModel(model)(MODEL)
    assert origin.id == f"hf:org/sd@{repo.commit}/{path}".rstrip("/")
    assert sha256(DATA) in origin.files.values()


def test_a_file_of_a_repository_has_its_path():
    file = WeightsFile(source="hf:org/name", file="a/b.safetensors", revision="1" * 40)
    assert address_of({"file": file}) == f"hf:org/name@{'1' * 40}/a/b.safetensors"


def test_a_local_model_has_the_files_that_are_read(tmp_path: Path):
    folder = tmp_path / "secret/mine"
    contents = {
        "model_index.json": b"{}",
        "unet/config.json": b"{ }",
        "unet/diffusion_pytorch_model.safetensors": b"whole",
        "unet/diffusion_pytorch_model.fp16.safetensors": b"half",
        "unet/diffusion_pytorch_model.bin": b"pickle",
        "tokenizer/merges.txt": b"merges",
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    read = {name for name in contents if not name.endswith((".bin", ".fp16.safetensors"))}
    origin = LocalModel.of(folder, None)(MODEL)
    assert origin.id == "file:mine"
    assert origin.files == {name: sha256(contents[name]) for name in read}
    half = LocalModel.of(folder, "float16")(MODEL)
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in half.files
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    assert LocalModel.of(file, None)(MODEL).files == {file.name: sha256(b"whole")}


def test_the_hash_of_a_changed_file_is_left_out(tmp_path: Path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"bytes")
    stamped = StampedFile.of(file)
    receipts = Hub.from_environment(offline=True).receipts
    assert stamped.sha256(receipts) == sha256(b"bytes")
    file.write_bytes(b"others")
    assert stamped.sha256(receipts) == ""
    file.unlink()
    assert stamped.sha256(receipts) == ""


def test_a_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "a.bin"
    file.write_bytes(b"bytes")
    receipts = Hub.from_environment(offline=True).receipts
    digest = receipts.hash_of(file)
    assert receipts.find(digest) == file
    monkeypatch.setattr("refiners.hub.receipts.sha256_of", lambda path: pytest.fail("read again"))
    assert receipts.hash_of(file) == digest
    monkeypatch.undo()
    file.write_bytes(b"others")
    assert receipts.hash_of(file) != digest
