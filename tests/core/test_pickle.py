"""A published pickle is opened once, carefully, and becomes safetensors."""

import os
import pickle

import pytest
import torch

from refiners_core.weights import TensorFile, read
from refiners_core.weights.pickle_file import PickleError, rewrite_pickle


class Evil:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_nested_tensors_get_dotted_names(tmp_path):
    shared = torch.arange(4.0)
    content = {"image_proj": {"w": shared}, "ip": {"1.k": shared[1:]}, "rank": 4}
    torch.save(content, tmp_path / "a.bin")
    rewrite_pickle(tmp_path / "a.bin", tmp_path / "a.safetensors")
    tensors = read(tmp_path / "a.safetensors")
    assert sorted(tensors) == ["image_proj.w", "ip.1.k"]
    assert tensors["ip.1.k"].equal(shared[1:])
    with TensorFile(tmp_path / "a.safetensors") as file:
        assert file.metadata()["rank"] == "4"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("make", ["evil", "junk", "empty", "plain"])
def test_anything_but_tensors_is_not_opened(tmp_path, make):
    path = tmp_path / "a.bin"
    if make == "evil":
        path.write_bytes(pickle.dumps({"a": Evil(tmp_path / "was-run")}))
    elif make == "plain":
        torch.save({"a": 1}, path)
    else:
        path.write_bytes(b"junk" if make == "junk" else b"")
    with pytest.raises(PickleError) as caught:
        rewrite_pickle(path, tmp_path / "a.safetensors")
    assert caught.value.exit_code == 4
    assert not (tmp_path / "was-run").exists()
    assert not (tmp_path / "a.safetensors").exists()


def test_an_old_torch_opens_none(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(PickleError, match=r"torch 2\.9\.1\+cpu does not open"):
        rewrite_pickle(tmp_path / "a.bin", tmp_path / "a.safetensors")
