"""Manifests: valid ones are read, and every fault of the others is explained."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refiners.errors import ManifestError
from refiners.manifest.reader import load_manifest, parse
from refiners.manifest.schema import AdapterManifest, ModelManifest, WeightsFile, json_schema

CANNY = """\
schema = 1
[adapter.controlnet-canny]
factory  = "refiners_controlnet.adapter:ControlNet"
summary  = "Follow the edges of a picture"
paper    = "arXiv:2302.05543"
kind     = "control"
core-api = ">=1.0,<2"
license  = "MIT"
x-note   = "anybody's own"

[[adapter.controlnet-canny.variant]]
base    = "sd15"
facts   = { cross_attention_dim = 768 }
targets = [{ slot = "unet.skip.write", stage = "branch" }]
weights = "sd15"

[[adapter.controlnet-canny.variant]]
base    = "playground"
settings = { x-anything = [1, "two"] }
weights = { weights = "small", encoder = "small" }

[adapter.controlnet-canny.weights.sd15]
source = "hf:lllyasviel/control_v11p_sd15_canny"
revision = "115a470d547982438f70198e353a921996e2e819"
file = "diffusion_pytorch_model.safetensors"
sha256 = "be713fb941fc7c625f0c7d816b6a19115783a665f3049a8974f127e0c075d9a9"
license = "openrail"

[adapter.controlnet-canny.weights.small]
source = "pkg:refiners_playground/weights/canny.safetensors"
sha256 = "be713fb941fc7c625f0c7d816b6a19115783a665f3049a8974f127e0c075d9a9"
size = 12
"""


def faults_of(text: str) -> list[str]:
    manifest, faults = parse(text, AdapterManifest)
    assert manifest is None
    return [str(fault) for fault in faults]


def test_a_valid_manifest_is_read() -> None:
    manifest, faults = parse(CANNY, AdapterManifest)
    assert faults == ()
    assert manifest is not None
    canny = manifest.adapter["controlnet-canny"]
    assert canny.bases == ("sd15", "playground")
    assert canny.variant[0].files == {"weights": "sd15"}
    assert canny.variant[1].files == {"weights": "small", "encoder": "small"}
    assert canny.variant[1].settings == {"x-anything": [1, "two"]}
    assert canny.weights["sd15"].address == "lllyasviel/control_v11p_sd15_canny"
    assert canny.weights["small"].scheme == "pkg"


def test_a_variant_without_a_base_suits_any() -> None:
    text = CANNY.replace('base    = "sd15"\n', "").replace('base    = "playground"\n', "")
    manifest, _ = parse(text, AdapterManifest)
    assert manifest is not None
    assert manifest.adapter["controlnet-canny"].bases == ("any",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("summary ", "sumary ", "line 4: adapter.controlnet-canny.sumary: no such key. Did you"),
        ('summary  = "Follow the edges of a picture"', "", "line 2: adapter.controlnet-canny: '"),
        ('kind     = "control"', "kind = 3", "line 6: adapter.controlnet-canny.kind: 3: Expected"),
        ("refiners_controlnet.adapter:", "a/b:", "line 3: adapter.controlnet-canny.factory: 'a/b:"),
        (">=1.0,<2", "about 1", "line 7: adapter.controlnet-canny.core-api: 'about 1' should be"),
        ('revision = "115', 'revision = "main', "40 lower-case hex digits"),
        ('revision = "115', 'revision = "115\\n', "40 lower-case hex digits"),
        ('sha256 = "be7', 'sha256 = "BE7', "64 lower-case hex digits"),
        ("hf:lllyasviel/", "https://evil/", "hf:organisation/repository"),
        ("hf:lllyasviel/", "hf:../", "hf:organisation/repository"),
        ("hf:lllyasviel/", "", "hf:organisation/repository"),
        ('"diffusion_pytorch_model.s', '"../../s', "should be a path inside the repository"),
        ('"diffusion_pytorch_model.s', '"/etc/s', "should be a path inside the repository"),
        ("pkg:refiners_playground/", "pkg:refiners_playground/../", "pkg:package/path/to/file"),
        ('weights = "sd15"', 'weights = "sd16"', "line 15: adapter.controlnet-canny.variant[0]"),
        ('encoder = "small"', 'encoder = "smal"', "line 20: adapter.controlnet-canny.variant[1]"),
        ('stage = "branch"', 'stage = "branches"', "line 14: adapter.controlnet-canny.variant[0]"),
        ("file = ", "x-file = ", "line 22: adapter.controlnet-canny.weights.sd15: 'file' is"),
        ("size = 12", "size = 0", "0 should be a number of bytes"),
        ("size = 12", 'file = "a"', "is for the Hub"),
        ("[adapter.controlnet-canny]", "[adapter.Canny_1]", "'Canny_1' should be lower-case words"),
        ("schema = 1", "schema = 2", "line 1: schema: schema 2 is newer than this version reads"),
        ("schema = 1", 'schema = "1"', "line 1: schema: '1' should be 1"),
        ("schema = 1", "", "'schema' is missing"),
        ("schema = 1", "schema = ", "is not TOML"),
    ],
)  # fmt: skip
def test_a_fault_has_its_line(old: str, new: str, message: str) -> None:
    assert old in CANNY
    assert any(message in fault for fault in faults_of(CANNY.replace(old, new)))


def test_all_faults_are_reported_at_once() -> None:
    text = CANNY.replace("summary ", "sumary ").replace("size = 12", "size = -1")
    text = text.replace('kind     = "control"', "kind = 3").replace('base    = "sd15"', "base = []")
    assert [fault.partition(":")[0] for fault in faults_of(text)] == [
        "line 2",
        "line 4",
        "line 6",
        "line 12",
        "line 32",
    ]


def test_only_files_on_the_hub_may_have_an_unknown_hash() -> None:
    pin = 'sha256 = "be713fb941fc7c625f0c7d816b6a19115783a665f3049a8974f127e0c075d9a9"'
    hub_unknown = CANNY.replace(pin, 'sha256 = "unknown"', 1).replace(
        '"115a470d547982438f70198e353a921996e2e819"', '"unknown"'
    )
    assert parse(hub_unknown, AdapterManifest)[1] == ()
    (fault,) = faults_of(CANNY.replace(pin, 'sha256 = "unknown"'))
    assert "'sha256' is missing" in fault


def test_an_adapter_needs_a_variant() -> None:
    text = 'schema = 1\n[adapter.a]\nfactory = "m:f"\nsummary = ""\ncore-api = ""\nvariant = []\n'
    (fault,) = faults_of(text)
    assert fault == "line 6: adapter.a.variant: [] should be at least one variant"


def test_a_model_manifest_is_read() -> None:
    text = """
schema = 1
[model.playground]
factory = "refiners_playground.model:build"
summary = "A small model"
core-api = ">=1.0,<2"
family = "sd15"
demo = "refiners_playground.demo:run"
[model.playground.weights.vocabulary]
source = "hf:org/repo"
file = "vocab.json"
format = "json"
"""
    manifest, faults = parse(text, ModelManifest)
    assert faults == ()
    assert manifest is not None
    assert manifest.model["playground"].weights["vocabulary"].sha256 == "unknown"


def test_an_error_names_the_file_and_the_package(tmp_path: Path) -> None:
    path = tmp_path / "adapter.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(ManifestError, match="cannot be read") as caught:
        load_manifest(path, AdapterManifest, dist="refiners-x")
    assert (caught.value.path, caught.value.dist) == (path, "refiners-x")
    path.write_bytes(b"a" * 2_000_000)
    with pytest.raises(ManifestError, match="larger than"):
        load_manifest(path, AdapterManifest)
    with pytest.raises(ManifestError, match="No such file"):
        load_manifest(tmp_path / "nowhere.toml", AdapterManifest)


def test_the_json_schema_is_exported() -> None:
    schema = json_schema(AdapterManifest)
    properties = schema["$defs"]["AdapterSpec"]["properties"]
    assert "core-api" in properties
    assert schema["$defs"]["AdapterSpec"]["additionalProperties"] is False


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_text_is_read_or_explained(data: st.DataObject) -> None:
    lines = CANNY.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        lines[at] = data.draw(
            st.sampled_from(["", lines[at][:-1], lines[-1], "[[adapter]]", "a = {b = [[1]]}"])
            | st.text(max_size=30)
            | st.sampled_from(lines)
        )
    manifest, faults = parse("\n".join(lines), AdapterManifest)
    assert (manifest is None) == bool(faults)


def test_a_weights_file_splits_its_address() -> None:
    packaged = WeightsFile(source="pkg:refiners_data/deep/w.bin", sha256="0" * 64)
    assert packaged.package_path == ("refiners_data", "deep/w.bin")
    assert WeightsFile(source="hf:org/repo", file="deep/w.bin").organisation == "org"
