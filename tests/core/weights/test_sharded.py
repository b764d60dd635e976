"""Weights in several files and in several precisions, as large models are published."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from refiners_core import Chain, weights
from refiners_core.errors import ModelError, WeightsError
from refiners_core.models.folder import PublishedFolder

SHARDS = {
    "model-00001-of-00002.safetensors": {"a.weight": torch.ones(2, 2)},
    "model-00002-of-00002.safetensors": {"a.bias": torch.zeros(2), "b.bias": torch.ones(1)},
}


@pytest.fixture
def index(tmp_path):
    """The index of the shards above, beside them."""
    for name, tensors in SHARDS.items():
        save_file(tensors, tmp_path / name)
    path = tmp_path / "model.safetensors.index.json"
    shard_of = {key: name for name, tensors in SHARDS.items() for key in tensors}
    path.write_text(json.dumps({"metadata": {"total_size": 28}, "weight_map": shard_of}))
    return path


def edit(index, **shard_of):
    document = json.loads(index.read_text())
    document["weight_map"] |= {key.replace("_", "."): shard for key, shard in shard_of.items()}
    index.write_text(json.dumps(document))


def test_a_tree_takes_its_tensors_from_all_files_of_an_index(index):
    with torch.device("meta"):
        tree = Chain(a=nn.Linear(2, 2), b=nn.LayerNorm(1, elementwise_affine=False))
        tree.b.bias = nn.Parameter(torch.empty(1))
    weights.load(tree, index)
    assert tree.a.weight.tolist() == [[1, 1], [1, 1]]
    assert (tree.a.bias.tolist(), tree.b.bias.tolist()) == ([0, 0], [1])


def test_a_tensor_that_an_index_lacks_is_missing_as_in_a_single_file(index):
    with pytest.raises(weights.MisfitError) as caught:
        weights.load(Chain(a=nn.Linear(2, 2), c=nn.Linear(1, 1)), index)
    assert caught.value.missing == ("c.weight", "c.bias")
    assert caught.value.unexpected == ("b.bias",)


def test_a_missing_file_is_named(index):
    index.with_name("model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"2 files, of which model-00002-of-00002.* is missing"):
        weights.read(index)


def test_files_of_different_versions_are_refused(index):
    edit(index, c_weight="model-00001-of-00002.safetensors")
    with pytest.raises(WeightsError, match=r"lists c\.weight in .*, which does not contain it\."):
        weights.read(index)


def test_a_tensor_in_two_files_is_that_of_the_file_that_the_index_names(index):
    save_file(
        {"a.weight": torch.zeros(2, 2), **SHARDS["model-00002-of-00002.safetensors"]},
        index.with_name("model-00002-of-00002.safetensors"),
    )
    assert weights.read(index)["a.weight"].tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "..", "", 7, None])
def test_an_index_cannot_lead_outside_its_folder(index, shard):
    edit(index, a_bias=shard)
    with pytest.raises(WeightsError, match="which is not a file name"):
        weights.read(index)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": [1]}'])
def test_a_file_that_is_not_an_index_is_refused(index, text):
    index.write_text(text)
    with pytest.raises(WeightsError, match="is not an index of weights"):
        weights.read(index)


# --- which file of a folder ---

PLAIN, HALF = "model.safetensors", "model.fp16.safetensors"
INDEX, HALF_INDEX = "model.safetensors.index.json", "model.safetensors.index.fp16.json"


@pytest.mark.parametrize(
    ("there", "dtype", "wanted"),
    [
        ([PLAIN, HALF], None, PLAIN),
        ([PLAIN, HALF], torch.float32, PLAIN),
        ([PLAIN, HALF], torch.float16, HALF),
        ([PLAIN, HALF], torch.bfloat16, PLAIN),
        ([HALF], None, HALF),
        ([INDEX], None, INDEX),
        ([INDEX, HALF_INDEX], torch.float16, HALF_INDEX),
        ([INDEX, HALF_INDEX], torch.float32, INDEX),
        ([HALF_INDEX], torch.float32, HALF_INDEX),
        (["model.bf16.safetensors", PLAIN], torch.bfloat16, "model.bf16.safetensors"),
        (["diffusion_pytorch_model.safetensors.index.json"], None, None),
        (["model.bin", "pytorch_model.bin", PLAIN], None, PLAIN),
    ],
)
def test_the_file_that_suits_the_dtype_is_chosen(tmp_path, there, dtype, wanted):
    (tmp_path / "unet").mkdir()
    for name in there:
        (tmp_path / "unet" / name).touch()
    assert PublishedFolder(tmp_path).weights("unet", dtype).name == (wanted or there[0])


def test_a_folder_with_only_pickles_is_refused_with_a_hint(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet/diffusion_pytorch_model.bin").touch()
    with pytest.raises(ModelError, match="only as a pickle") as caught:
        PublishedFolder(tmp_path).weights("unet")
    assert "rewrite_pickle(" in caught.value.hint
    assert "diffusion_pytorch_model.safetensors', sha256=...)" in caught.value.hint
