"""Depth, held to transformers on random weights: from a folder, and through the registry."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import refiners
import torch
from PIL import Image
from refiners.testing import LoopbackHub, Repository
from refiners_preprocessors import DepthEstimator
from torch.nn import functional as F

from refiners_core.errors import ModelError, WeightsError

transformers = pytest.importorskip("transformers")
NAMES = ("model.safetensors", "config.json", "preprocessor_config.json")
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (45, 61, 3), dtype=np.uint8))


def save(folder: Path, **changes: Any) -> Any:
    """Writes a small Depth Anything with random weights; returns the network."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
    from transformers import DPTImageProcessorPil as Processor

    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=28,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        initializer_range=0.5,
        **changes,
    )
    torch.manual_seed(1)
    network = DepthAnythingForDepthEstimation(config).eval()
    torch.nn.init.ones_(network.head.conv3.bias)
    network.save_pretrained(folder)
    Processor(
        size={"height": 56, "width": 56}, ensure_multiple_of=14, keep_aspect_ratio=True
    ).save_pretrained(folder)
    return network


def reference(
    folder: Path, network: Any, picture: Image.Image, *, is_metric: bool = False
) -> torch.Tensor:
    """Returns the nearness in the size of the picture, in a straight line."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        depth = network(**processor(images=picture, return_tensors="pt")).predicted_depth
    depth = 1 / depth.clamp(min=1e-3) if is_metric else depth
    size = (picture.height, picture.width)
    return F.interpolate(depth[:, None], size, mode="bicubic", align_corners=False)[0, 0]


def scaled(depth: torch.Tensor) -> np.ndarray:
    share = (depth - depth.min()) / (depth.max() - depth.min())
    return (share * 255).round().numpy().astype(int)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("depth")
    save(folder)
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub() as served, served.in_use(tmp_path / "hf"):
        yield served


def test_a_network_in_a_folder_predicts_as_in_transformers(folder: Path):
    network = transformers.AutoModelForDepthEstimation.from_pretrained(folder).eval()
    wanted = reference(folder, network, PICTURE)
    estimator = DepthEstimator(folder=folder)
    torch.testing.assert_close(estimator.nearness(PICTURE), wanted, rtol=1e-5, atol=1e-5)
    made = estimator(PICTURE)
    assert (made.mode, made.size) == ("L", (61, 45))
    assert np.abs(np.asarray(made).astype(int) - scaled(wanted)).max() <= 1
    assert (np.asarray(made).min(), np.asarray(made).max()) == (0, 255)
    assert estimator(PICTURE, size=(30, 20)).size == (30, 20)


def test_distances_are_turned_into_nearness(tmp_path: Path):
    network = save(tmp_path, depth_estimation_type="metric", max_depth=10)
    estimator = DepthEstimator(folder=tmp_path)
    wanted = reference(tmp_path, network, PICTURE, is_metric=True)
    torch.testing.assert_close(estimator.nearness(PICTURE), wanted, rtol=1e-4, atol=1e-3)


def test_the_registry_fetches_the_weights(folder: Path, hub: LoopbackHub):
    name = "depth-anything/Depth-Anything-V2-Small-hf"
    manifest = next(p for p in refiners.preprocessors() if p.name == "depth")
    commit = manifest.spec.weights["weights"].revision
    files = {file: (folder / file).read_bytes() for file in NAMES}
    hub.repositories[name] = Repository(name, commit, files)
    estimator: Any = refiners.load_preprocessor("depth")
    assert estimator(PICTURE) == DepthEstimator(folder=folder)(PICTURE)


def test_a_picture_without_depth_is_black(folder: Path):
    estimator = DepthEstimator(folder=folder)
    estimator.nearness = lambda image: torch.full((4, 4), 3.0)  # pyright: ignore
    assert np.asarray(estimator(PICTURE)).max() == 0


def test_incomplete_weights_are_refused(folder: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    for name in NAMES[1:]:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(WeightsError, match="does not have a depth network"):
        DepthEstimator(folder=tmp_path)
    tensors = load_file(folder / NAMES[0])
    del tensors["head.conv3.weight"]
    save_file(tensors, tmp_path / NAMES[0], metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="lacks 1 weights of Depth"):
        DepthEstimator(folder=tmp_path)


def test_without_a_folder_weights_or_transformers_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(ModelError, match="needs weights") as error:
        DepthEstimator()
    assert 'load_preprocessor("depth")' in error.value.hint
    with pytest.raises(ModelError, match="does not exist"):
        DepthEstimator(folder=tmp_path / "nowhere")
    depth = sys.modules[DepthEstimator.__module__]
    monkeypatch.setattr(depth, "find_spec", lambda name: None)
    fetched: list[str] = []
    with pytest.raises(ModelError, match="not installed") as missing:
        DepthEstimator(weights=lambda: fetched.append("x") or SimpleNamespace())  # pyright: ignore
    assert missing.value.hint == 'Run pip install "refiners-preprocessors[depth]".'
    assert fetched == []  # nothing is fetched in vain


def test_the_licence_of_the_weights_is_stated():
    manifest = next(p for p in refiners.preprocessors() if p.name == "depth")
    assert {file.license for file in manifest.spec.weights.values()} == {"apache-2.0"}
    assert json.dumps(sorted(manifest.spec.weights)) == '["config", "processor", "weights"]'
