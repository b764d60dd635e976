"""Models without a name are opened from paths and from live pipelines."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import refiners
from click.testing import CliRunner
from refiners.cli import main
from refiners.manifest.reader import load_manifest
from refiners.manifest.schema import ModelManifest
from refiners.sources.local import is_local
from refiners.testing import LoopbackHub, safetensors_of

from refiners_core.errors import ModelError
from refiners_core.models.formats import open as opening

from ..conftest import Site

MANIFEST = Path(refiners.__file__).parent / "model.toml"


def test_paths_are_distinguished_from_names() -> None:
    for what in ("./model", "model.safetensors", "a/b", Path("model")):
        assert is_local(what)
    for what in ("sd15", "refiners-core:sd15", "hf:org/repo", 3, None, object()):
        assert not is_local(what)
    assert is_local(SimpleNamespace(components={}))


def test_a_missing_file_and_a_file_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a file nor a folder"):
        refiners.load_model(tmp_path / "elsewhere")
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors_of({"lora_unet_x.lora_down.weight": [1.0]}))
    with pytest.raises(ModelError, match=r"is a LoRA \(kohya\)"):
        refiners.load_model(str(path))


def test_a_pipeline_is_not_moved_or_cast(tmp_path: Path) -> None:
    with pytest.raises(refiners.OptionError, match="tensors are shared"):
        refiners.load_model(SimpleNamespace(components={}), dtype="float16")
    with pytest.raises(ModelError, match="has no unet, vae"):
        refiners.load_model(SimpleNamespace(components={}))


def test_a_single_file_uses_the_vocabulary_of_the_release(
    site: Site, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only asks for the tokenizer; another test opens such a file."""
    options_of_open: dict[str, Any] = {}
    monkeypatch.setattr(opening, "open_model", lambda _, **options: options_of_open.update(options))
    refiners.load_model("model.safetensors")
    words = ["a", "a</w>", "<|startoftext|>", "<|endoftext|>"]
    vocab = json.dumps({word: i for i, word in enumerate(words)}).encode()
    manifest = MANIFEST.read_text()
    published = hub.publish("org/sd", {"tokenizer/vocab.json": vocab, "tokenizer/merges.txt": b""})
    manifest = manifest.replace("stable-diffusion-v1-5/stable-diffusion-v1-5", "org/sd")
    manifest = manifest.replace("f03de327dd89b501a01da37fc5240cf4fdba85a1", published.commit)
    site.add("refiners-core", package="released", files={"model.toml": manifest})
    tokenizer = options_of_open["tokenizer"]("sd15")
    assert (tokenizer.length, tokenizer.size) == (77, 4)
    assert not any("unet" in str(request) for request in hub.requests)
    with pytest.raises(refiners.RefinersError) as error:
        options_of_open["tokenizer"]("sdxl")
    assert "tokenizer's folder beside model.safetensors" in error.value.__notes__[0]


def test_the_released_models_are_installed_and_pinned() -> None:
    specs = load_manifest(MANIFEST, ModelManifest).model
    assert set(specs) == {"sd15", "sdxl"}
    assert {"sd15", "sdxl"} <= {
        model.name for model in refiners.models() if model.dist == "refiners-core"
    }
    for spec in specs.values():
        for role, file in spec.weights.items():
            assert file.revision != "unknown"
            assert (file.sha256 == "unknown") == (role in ("vocab", "merges"))


@pytest.mark.parametrize(
    ("base", "count"), [("sd15", 16), ("sdxl", 11)]
)  # the 70 of SDXL are printed as 11 stacks of equal blocks
def test_the_tree_of_a_released_model_is_printed_without_weights(base: str, count: int) -> None:
    done = CliRunner().invoke(main, ["tree", base, "--part", "unet"], prog_name="refiners")
    assert done.exit_code == 0
    assert done.output.count(": CrossAttention") == count


def test_a_released_model_is_built_from_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from refiners_core import Source
    from refiners_core.models.formats import release

    (tmp_path / "vocab.json").write_text(
        json.dumps({"<|startoftext|>": 49406, "<|endoftext|>": 49407})
    )
    (tmp_path / "merges.txt").write_text("")

    def fill(model: Any, files: Any, **_: Any) -> Any:
        loaded.update(files)
        return model

    loaded: dict[str, Path] = {}
    monkeypatch.setattr(release, "load_weights", fill)
    names = {"vocab": "vocab.json", "merges": "merges.txt", "unet": "u.safetensors"}
    files = {role: tmp_path / name for role, name in names.items()}
    model = release.build_sd15(Source(files, {}, "sd15"))
    assert loaded == {"unet": tmp_path / "u.safetensors"}
    assert model.tokenizer is not None
    assert not any(weight.requires_grad for weight in model.parameters())
