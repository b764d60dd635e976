"""A repository of the Hub is the model that its folder is, to the last bit."""

from pathlib import Path
from typing import Any

import pytest
import refiners
import torch
from refiners.testing import LoopbackHub
from safetensors.torch import load_file, save_file

from refiners_core.models.formats.open import open_folder


def published(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def drawn(model: Any) -> torch.Tensor:
    return model.generate("a cat", steps=2, size=(64, 64), seed=1, output="tensor", progress=False)


@pytest.mark.parametrize("family", ["sd15_folder", "sdxl_folder"])
@pytest.mark.filterwarnings("ignore:hf.org/model is commit")
def test_a_repository_equals_its_folder(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    _, folder = request.getfixturevalue(family)
    with LoopbackHub() as hub, hub.in_use(tmp_path):
        hub.publish("org/model", published(folder))
        model = refiners.load_model("hf:org/model")
        hub.requests.clear()
        again = refiners.load_model("hf:org/model", offline=True)
        assert hub.requests == []
    assert torch.equal(drawn(model), drawn(open_folder(folder)))
    assert torch.equal(drawn(model), drawn(again))


@pytest.mark.filterwarnings("ignore:hf.org/model is commit")
def test_weights_in_several_files_and_in_half_precision(
    sd15_folder: tuple[Any, Path], tmp_path: Path
) -> None:
    pipe, _ = sd15_folder
    pipe.save_pretrained(tmp_path / "sharded", max_shard_size="300KB")
    files = published(tmp_path / "sharded")
    assert len([name for name in files if name.startswith("unet/") and "-of-" in name]) > 1
    whole = "text_encoder/model.safetensors"
    half = {key: value.half() for key, value in load_file(tmp_path / "sharded" / whole).items()}
    save_file(half, tmp_path / "half.safetensors")
    twin = whole.replace(".safetensors", ".fp16.safetensors")
    with LoopbackHub() as hub, hub.in_use(tmp_path / "hf"):
        hub.publish("org/model", {**files, twin: (tmp_path / "half.safetensors").read_bytes()})
        model = refiners.load_model("hf:org/model", dtype=torch.float16)
        requested = {r.path.split("/", 4)[-1] for r in hub.requests if r.method == "GET"}
    assert twin in requested
    assert whole not in requested
    expected = pipe.unet.conv_in.weight.half()
    assert any(torch.equal(expected, weight) for weight in model.unet.parameters())
