"""The result: a published file with metadata that loads again, and a manifest that is valid."""

import json
from pathlib import Path

import pytest
import refiners
import torch
from click.testing import CliRunner
from PIL import Image
from refiners.authoring.pin import pinned_manifests
from refiners.hub.client import Hub
from refiners.manifest.reader import load_manifest
from refiners.manifest.schema import AdapterManifest
from refiners_lora.adapter import Lora
from refiners_train import train

from refiners_core import Source
from refiners_core.errors import WeightsError
from refiners_core.weights import TensorFile, read

from .project import project


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a run with everything that may be written."""
    path = project(
        tmp_path_factory.mktemp("result"),
        data={"held-out": 2},
        log={
            "measure-every": 1,
            "tensorboard": True,
            "samples": {"every": 1, "prompts": ["a red circle", "a blue square"], "steps": 2},
        },
        result={
            "name": "ink",
            "title": "Ink",
            "trigger": "in ink",
            "license": "MIT",
            "repository": "me/ink",
        },
    )
    return train(path, device="cpu", progress=False)


def test_the_file_has_the_keys_of_its_family_and_no_wrappers(folder):
    keys = read(folder / "ink.safetensors").keys()
    assert all(key.startswith("unet.") and ".lora_" in key for key in keys)
    assert not any("module." in key.split(".lora_")[0].split("_orig_mod") for key in keys)
    assert not any("_orig_mod" in key for key in keys)


def test_the_metadata_are_those_of_modelspec_without_names_of_other_trainers(folder):
    with TensorFile(folder / "ink.safetensors") as file:
        metadata = file.metadata()
    assert metadata["modelspec.architecture"] == "playground/lora"
    assert metadata["modelspec.title"] == "Ink"
    assert metadata["modelspec.trigger_phrase"] == "in ink"
    assert metadata["modelspec.prediction_type"] == "v"
    assert metadata["modelspec.resolution"] == "64x64"
    assert len(json.loads(metadata["refiners.base"])["files"]["unet"]) == 64
    assert json.loads(metadata["refiners.training"])["train"]["steps"] == 2
    assert not any(key.startswith("ss_") for key in metadata)
    assert "/" not in metadata["refiners.training"]


def test_the_file_loads_by_its_path(folder):
    model = refiners.load_model("playground")
    adapter = refiners.load_adapter(folder / "ink.safetensors", model)
    assert isinstance(adapter, Lora)
    written = read(folder / "ink.safetensors")
    assert all(torch.equal(written[key], value) for key, value in adapter.published().items())


def test_the_manifest_is_valid_and_can_be_pinned(folder):
    manifest = load_manifest(folder / "adapter.toml", AdapterManifest)
    (name, spec), *others = manifest.adapter.items()
    assert (name, others) == ("ink", [])
    assert spec.factory == "refiners_lora.adapter:Lora"
    (variant,) = spec.variant
    assert (variant.base, variant.files) == ("playground", {"weights": "ink"})
    file = spec.weights["ink"]
    assert (str(file.source), file.file) == ("hf:me/ink", "ink.safetensors")
    assert file.size == (folder / "ink.safetensors").stat().st_size
    assert file.sha256 in Hub.from_environment(offline=True).receipts.hash_of(
        folder / "ink.safetensors"
    )
    with pytest.raises(refiners.NetworkError):
        pinned_manifests(folder / "adapter.toml", Hub.from_environment(offline=True))


def test_the_log_has_losses_of_training_and_of_held_out_examples(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    assert [line["step"] for line in lines if "held_out" in line] == [1, 2]
    assert list((folder / "tensorboard").iterdir())


def test_pictures_are_drawn_while_training(folder):
    names = sorted(path.name for path in (folder / "samples").iterdir())
    assert names == ["000001.png", "000002.png"]
    assert Image.open(folder / "samples" / names[0]).size == (128, 64)


def test_a_weight_that_is_lost_on_the_way_is_told(tmp_path, monkeypatch):
    published = Lora.published

    def lossy(self):
        weights = dict(published(self))
        if self.source is not None and "weights" in self.source.files:
            weights = {key: value * 2 for key, value in weights.items()}
        return weights

    monkeypatch.setattr(Lora, "published", lossy)
    with pytest.raises(WeightsError, match="differ after"):
        train(project(tmp_path, steps=1, batch=1), device="cpu", progress=False)


def test_a_source_counts_as_untrained_without_weights():
    assert not Source({"encoder": Path("x")}).begins


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "source", "options"),
    [
        ("controlnet-canny", "edged", {}),
        ("ip-adapter", "pictured", {}),
        ("instantid", "identified_and_placed", {}),
        ("textual-inversion", "worded", {"word": "<it>"}),
        ("palette", "coloured", {}),
        ("t2i-canny", "edged", {}),
        ("control-lora-canny", "edged", {}),
        ("lora", "inked", {"rank": 2, "method": "dora"}),
    ],
)
def test_every_family_is_published_and_loads(tmp_path, name, source, options):
    path = project(
        tmp_path,
        steps=1,
        adapter={"name": name, "options": options},
        data={"source": f"refiners_playground.lesson:{source}"},
        result={"dtype": "float16"},
    )
    folder = train(path, device="cpu", progress=False)
    load_manifest(folder / "adapter.toml", AdapterManifest)
    assert list(folder.rglob("*.safetensors"))


def test_the_shell_trains_plans_and_begins(tmp_path, monkeypatch):
    from refiners_train.command import train as command

    monkeypatch.chdir(tmp_path)
    shell = CliRunner()
    begun = shell.invoke(command, ["init", "lora"], standalone_mode=False)
    assert begun.return_value.facts == {"file": "lora.toml"}
    planned = shell.invoke(command, ["lora.toml", "--dry-run"], standalone_mode=False)
    facts = planned.return_value.facts
    assert facts["trained"] == 107_520
    assert (facts["examples"], facts["held_out"], facts["steps"]) == (496, 16, 300)
    assert facts["written"][0] == "runs/lora/lora.safetensors"
    assert not (tmp_path / "runs").exists()
    again = shell.invoke(command, ["init", "lora"], standalone_mode=False)
    assert "exists already" in str(again.exception)
    text = (tmp_path / "lora.toml").read_text().replace("steps = 300", "steps = 1")
    text = text.replace("count = 512", "count = 20").replace("batch = 16", "batch = 2")
    (tmp_path / "lora.toml").write_text(text.replace("warm-up = 30", "warm-up = 1"))
    trained = shell.invoke(command, ["lora.toml", "--device", "cpu"], standalone_mode=False)
    assert trained.exception is None
    assert trained.return_value.facts["files"].keys() == {"lora.safetensors"}
